"""End-effector trajectories in, a JAX action expert out, judged in MuJoCo."""

__version__ = "0.1.0"
