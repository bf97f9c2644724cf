"""The sizes and variants of the model."""

from dataclasses import dataclass

INJECTIONS = ("none", "all", "former", "latter")


@dataclass(frozen=True)
class VlaConfig:
    """What the model is made of.

    picture: rows and columns of pixels, both divisible by `patch`. vocabulary: rows of the token
    table, at least as many as there are tokens. text_length: tokens of prompt and answer together.
    mlp: one of `experts.MLPS`; of `experts` each token goes to `top_k`, all of width `mlp_width`.
    injection: in which half of the head's layers the reasoning stands where the observation stood,
    one of `INJECTIONS`. queries: of the pooling. horizon: rows of a chunk, 0.1 s apart.
    """

    picture: tuple[int, int] = (64, 96)
    patch: int = 8
    vocabulary: int = 512
    text_length: int = 128
    width: int = 128
    layers: int = 6
    heads: int = 4
    mlp: str = "dynamic"
    mlp_width: int = 256
    experts: int = 8
    top_k: int = 2
    injection: str = "latter"
    queries: int = 4
    horizon: int = 8
    head_width: int = 128
    head_layers: int = 6
    head_heads: int = 4
    train_steps: int = 100
    dtype: str = "float32"

    @property
    def patches(self) -> int:
        """Of a picture."""
        return self.picture[0] // self.patch * (self.picture[1] // self.patch)
