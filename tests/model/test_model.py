"""Every interleaving of a few processes in csrc/ipc, with some of them killed: see explore.h."""
import importlib.util
import shutil
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("model_run", Path(__file__).with_name("run.py"))
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)

pytestmark = pytest.mark.skipif(shutil.which(models.CC) is None, reason="needs a C compiler")
BROKEN = [pytest.param(name, broken, id=f"{name}-{broken.name}")
          for name, model in models.MODELS.items() for broken in model.broken]


@pytest.mark.parametrize("name", models.MODELS)
def test_no_interleaving_and_no_kill_does_harm(name):
    sound, text = models.run(name)
    assert sound, text


@pytest.mark.parametrize("name, broken", BROKEN)
def test_a_mistake_is_found(name, broken):
    found, text = models.finds(name, broken)
    assert found, text
