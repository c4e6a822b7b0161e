"""Names of layers as parts of paths: an oracle of properties, over any text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.arrays.names import MOST_BYTES, RESERVED, placed, unplaced
from stores.errors import SchemaMismatch

NAMES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.text("./~%=[]*?{}: @#\\\0\n_aé層", min_size=1, max_size=20),
    st.sampled_from([*RESERVED, "..", ".", "__", "=6Fwn", "%2F", "a=2Fb", "~root"]),
)


@given(NAMES)
def test_a_name_comes_back_from_its_part(name: str) -> None:
    assert unplaced(placed(name)) == name


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_different_names_have_different_parts(names: list[str]) -> None:
    assert len({placed(name) for name in names}) == len(names)


@given(NAMES)
def test_a_part_is_plain_hides_nothing_and_stands_beside_no_other_array(name: str) -> None:
    part = placed(name)
    assert re.fullmatch(r"[A-Za-z0-9=._\-+,@~]+", part)
    assert not part.startswith((".", "~", "__"))
    assert part not in RESERVED


@pytest.mark.parametrize("name", ["layer4.2", "classes", "encoder.layers.encoder_layer_2", "layer4.2@3,3", "a-b~pca"])
def test_usual_names_stay_as_they_are(name: str) -> None:
    assert placed(name) == name


def test_a_name_that_no_disk_takes_is_refused() -> None:
    assert len(placed("x" * MOST_BYTES)) == MOST_BYTES
    for name in ("x" * (MOST_BYTES + 1), "層" * 30, ""):
        with pytest.raises(SchemaMismatch, match="shorter name"):
            placed(name)
