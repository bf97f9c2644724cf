"""The parts of a conversion made by an Apache Beam pipeline; the same parts, the same bytes."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bridgeact_jax.datasets.parts import Job, Part, finished_part, make_part
from bridgeact_jax.errors import UsageError, UserError


def make_parts(job: Job, parts: Sequence[Part], options: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The reports of `parts`, in order, once a pipeline with Beam's `options` has made them all.

    The folder `job.parts` must be one that every machine of the pipeline can write: a URL, or a
    local one for runners that work on this machine. Raises UsageError without Apache Beam,
    UserError if the pipeline fails.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UsageError(
            "--runner=beam needs Apache Beam: pip install 'bridgeact_jax[beam]'"
        ) from None
    try:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            _ = (
                pipeline
                | "parts" >> beam.Create(list(parts))
                | "spread" >> beam.Reshuffle()
                | "convert" >> beam.Map(partial(_make_part, job))
            )
    except Exception as error:
        raise UserError(f"the Beam pipeline failed: {error}".splitlines()[0]) from error
    for part in parts:
        report = finished_part(job, part)
        if report is None:
            raise UserError(f"{job.parts}: part {part.number} is missing after the Beam pipeline: "
                            "--out must be a place that its workers and this machine share")
        yield report


def _make_part(job: Job, part: Part) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    make_part(job, part)
