"""Raw column statistics, reduced in blocks."""

import numpy as np
import pytest

from bridgeact_jax.datasets import columns
from bridgeact_jax.datasets.columns import column_stats


@pytest.mark.parametrize("rows", [1, 7, 8, 100, 103])
def test_blocks_give_the_statistics_of_all_rows(rows, monkeypatch):
    monkeypatch.setattr(columns, "STATS_ROWS", 8)
    values = np.random.default_rng(rows).normal(5.0, 2.0, size=(rows, 3)).astype(np.float32)
    stats = column_stats(values)
    exact = values.astype(np.float64)
    for name, wanted in {
        "min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0),
        "q01": np.quantile(exact, 0.01, axis=0), "q99": np.quantile(exact, 0.99, axis=0),
    }.items():
        np.testing.assert_allclose(stats[name], wanted, rtol=1e-12)


def test_rows_that_are_not_finite_do_not_count(monkeypatch):
    monkeypatch.setattr(columns, "STATS_ROWS", 2)
    stats = column_stats(np.array([np.nan, np.nan, 1.0, np.inf, 3.0], np.float32))
    assert (stats["min"], stats["max"], stats["mean"], stats["std"]) == (1.0, 3.0, 2.0, 1.0)
    assert set(column_stats(np.full(5, np.nan)).values()) == {None}
    assert set(column_stats(np.zeros(0)).values()) == {None}


def test_quantiles_of_many_rows_come_from_evenly_spaced_ones(monkeypatch):
    monkeypatch.setattr(columns, "QUANTILE_ROWS", 100)
    stats = column_stats(np.arange(1001.0))
    np.testing.assert_allclose([stats["q01"], stats["q99"]], [10, 990], atol=11)
    assert stats["max"] == 1000 and stats["mean"] == 500
