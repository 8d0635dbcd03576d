"""Every interleaving of a few processes in csrc/ipc, with some of them killed: see explore.h."""
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODELS = load("mistakes").MODELS
RUN = load("run")
SCENARIOS = [(model, scenario) for model in MODELS
             for scenario in re.findall(r'\.name = "(\w+)"', (HERE / f"{model}.c").read_text())]
MISTAKES = [pytest.param(model, broken, id=f"{model}-{broken.name}")
            for model in MODELS for broken in MODELS[model].broken]

pytestmark = [pytest.mark.model, pytest.mark.skipif(shutil.which(RUN.CC) is None, reason="needs a C compiler")]


@pytest.fixture(scope="session")
def explorer(tmp_path_factory):
    return RUN.build_explorer(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="session")
def program(explorer, tmp_path_factory):
    """Of a model, on the real source: each is built once."""
    built = {}

    def program(model):
        if model not in built:
            built[model] = RUN.build(model, MODELS[model].smaller, explorer, tmp_path_factory.mktemp(model))
        return built[model]
    return program


def test_every_model_is_known():
    assert {path.stem for path in HERE.glob("*.c")} == {*MODELS, "explore", "processes"}


@pytest.mark.parametrize("model, scenario", SCENARIOS)
def test_no_interleaving_and_no_kill_does_harm(model, scenario, program):
    done = subprocess.run([program(model), scenario], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("model, broken", MISTAKES)
def test_a_mistake_is_found(model, broken, explorer):
    found, text = RUN.find(model, explorer, broken)
    assert found, text
