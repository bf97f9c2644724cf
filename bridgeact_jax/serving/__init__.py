"""The expert behind a socket: policy server, its light client, and a player of recordings."""
