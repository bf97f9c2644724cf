"""Pure JAX geometry: rotations, poses, guidance curves, keyframes, cameras and point clouds."""
