"""Executes the notebooks that are named, or all, and keeps them small: pictures as JPEG, no progress bars, no folders.

python docs/notebooks/execute.py [NAME …]
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
INLINE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def execute(file: Path) -> None:
    """Run all cells in an empty folder and write the outputs into the file."""
    notebook: Any = nbformat.read(file, 4)  # type: ignore[no-untyped-call]
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    with tempfile.TemporaryDirectory() as work:
        os.environ["PREFECT_HOME"] = str(Path(work) / ".prefect")
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": work}}).execute()
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs = [small(output, work) for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, file)  # type: ignore[no-untyped-call]


def small(output: Any, work: str) -> Any:
    """An output with its picture once, as JPEG, and without the folder that it was made in."""
    data = output.get("data", {})
    if "image/png" in data:
        data.pop("text/html", None)
        data["image/jpeg"] = jpeg(data.pop("image/png"))
    for kind, text in data.items():
        if isinstance(text, str) and kind.startswith("text/"):
            inline = INLINE.sub(lambda found: f"data:image/jpeg;base64,{jpeg(found[1])}", text)
            data[kind] = inline.replace(f"{work}/", "")
    return output


def jpeg(png: str) -> str:
    """A picture's PNG as JPEG, both in base64."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").save(buffer, "jpeg", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        execute(FOLDER / f"{name}.ipynb")
