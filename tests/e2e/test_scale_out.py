"""Scaling by the signal: an autoscaler that reads only /metrics makes the lag of a pool recover, and lets its workers go again."""

import pytest

from bench import scale_out
from bench.autoscaler import Rule


@pytest.mark.requirement("R10")
@pytest.mark.timeout(60)
def test_workers_started_by_the_lag_on_metrics_make_it_recover_and_are_drained_when_it_has(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KFM_IGGY_ADDRESS", raising=False)
    monkeypatch.setattr(scale_out, "LOOK_SECONDS", 0.1)
    rule = Rule(late=0.3, well=0.2, looks=2, pause=0.5, most=2)
    assert scale_out.run(14.0, rule, within=30.0), capfd.readouterr().out
