import os
import subprocess
import sys

from genbench.torchvision_shim import import_torchvision


def run(code):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, env=environment)


def test_torchvision_and_torch_fidelity_import_beside_this_torch():
    done = run(
        "from genbench.torchvision_shim import import_torchvision\n"
        "assert import_torchvision() is import_torchvision()\n"
        "import torchvision, torch\n"
        "assert torchvision.transforms.functional.normalize(torch.full((3, 2, 2), 4.0), [2.0] * 3, [0.5] * 3).unique().tolist() == [4.0]\n"
        "from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as known\n"
        "assert 'inception-v3-compat' in known\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_other_failures_of_the_import_are_not_hidden():
    done = run(
        "import sys, types\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torchvision': raise RuntimeError('disk on fire')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "from genbench.torchvision_shim import import_torchvision\n"
        "import_torchvision()\n"
    )
    assert done.returncode != 0
    assert "disk on fire" in done.stderr


def test_it_is_torchvision_itself():
    assert import_torchvision() is sys.modules["torchvision"]
