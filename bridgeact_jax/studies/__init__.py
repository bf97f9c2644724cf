"""The papers' studies: what is compared, how it is kept fair, and what came out."""
