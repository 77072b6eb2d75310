"""The landscape study on recorded funding has the form that is known of it: noise on top, a slow part under it, runs too short to pay."""

import json
import os
from pathlib import Path

import papermill
import pytest

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FUNDARB_SHARED", ROOT.parent / "shared")) / "data" / "real"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no recorded market data: set FUNDARB_SHARED")
def test_recorded_spreads_have_the_known_form(tmp_path):
    """Other coins and months than the reference year: its form is asserted in bands, not its digits."""
    study = ROOT / "nbs" / "studies" / "funding_landscape.ipynb"
    asked = {"data": str(SHARED), "out": str(tmp_path)}
    papermill.execute_notebook(
        str(study), str(tmp_path / "done.ipynb"), asked, kernel_name="python3", progress_bar=False
    )
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["synthetic"] is False
    mean = told["by_pair"]["mean of all"]
    assert mean["mean abs APR %"] == pytest.approx(8.5, rel=0.25)
    assert mean["AR(1)"] == pytest.approx(0.40, abs=0.10)
    assert mean["half-life h"] == pytest.approx(6.6, rel=0.35)
    assert 8 <= told["median_run_h"] <= 16
    slope, corr, sign = (told[name] for name in ("slope", "corr", "sign_right"))
    assert slope["168>168"] == pytest.approx(0.48, abs=0.10)
    assert corr["168>168"] == pytest.approx(0.46, abs=0.10)
    assert sign["168>168"] == pytest.approx(0.77, abs=0.06)
    assert slope["24>72"] == pytest.approx(0.25, abs=0.10)
    assert slope["24>72"] < slope["72>72"] < slope["168>168"]
    assert told["paid_frac"] < 0.1
