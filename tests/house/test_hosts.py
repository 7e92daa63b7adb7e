"""What the page for many hosts has people copy is right."""

from __future__ import annotations

import re
import subprocess
from importlib import resources
from pathlib import Path

import pytest

PAGE = Path(str(resources.files("katafs").joinpath("docs/hosts.md")))


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("program", ["haproxy", "nginx"])
def test_balancers_take_their_configuration(program: str, tmp_path: Path) -> None:
    if not Path("/usr/sbin", program).exists():
        pytest.skip(f"there is no {program}")
    file = tmp_path / "configuration"
    command = ["/usr/sbin/haproxy", "-c", "-f", str(file)]
    text = block(program)
    if program == "nginx":
        text = f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{text}}}\n"
        command = ["/usr/sbin/nginx", "-t", "-p", str(tmp_path), "-c", str(file)]
    file.write_text(text)
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "warn" not in (said.stdout + said.stderr).lower()
