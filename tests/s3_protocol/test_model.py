"""The generated model is current, complete, and what the router and error table need of it is there."""

import importlib.util
from pathlib import Path
from types import ModuleType

import botocore
import pytest
from packaging.version import Version

from ostraka.s3 import _model
from ostraka.s3.checksums import ALGORITHMS
from ostraka.s3.errors import CODES
from ostraka.s3.model import ENUMS, OPERATIONS, RESPONSE_ALGORITHMS, body_of, is_structure, structure

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_s3_model.py"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_s3_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_model_is_what_the_installed_botocore_gives() -> None:
    if botocore.__version__ != _model.BOTOCORE:
        if Version(botocore.__version__) < Version(_model.BOTOCORE):
            pytest.skip(f"botocore {botocore.__version__} is older than {_model.BOTOCORE}, which the model is from")
        pytest.fail(
            f"botocore {botocore.__version__} is newer than {_model.BOTOCORE}: run "
            "`python scripts/generate_s3_model.py`, read the difference, and route or refuse what is new"
        )
    module = generator()
    assert module.Model(module.load()).render() == module.TARGET.read_text()


def test_every_structure_can_be_read_and_names_only_known_types() -> None:
    scalars = {"string", "integer", "long", "boolean", "blob", "timestamp"}
    for name in _model.STRUCTS:
        for m in structure(name).members:
            known = is_structure(m.type) or m.type in _model.LISTS or m.type in ENUMS or m.type in _model.MAPS
            assert known or m.type.partition(".")[0] in scalars, (name, m)


def test_every_checksum_algorithm_of_the_model_is_built() -> None:
    assert set(ALGORITHMS) == set(ENUMS["ChecksumAlgorithm"]) == set(RESPONSE_ALGORITHMS)
    for a in ALGORITHMS.values():
        assert structure("PutObjectRequest").member(a.member).wire == a.header
        assert set(a.types) <= ENUMS["ChecksumType"]


def test_every_code_that_the_model_documents_is_in_the_error_table_with_its_status() -> None:
    for code, status in {**_model.DOCUMENTED_CODES, **_model.ERROR_SHAPES}.items():
        assert CODES[code][0] == status, code


def test_operations_say_what_their_body_is() -> None:
    assert body_of("CompleteMultipartUploadRequest") == ("CompletedMultipartUpload", "CompleteMultipartUpload")
    assert body_of("PutObjectRequest") is None
    assert body_of(OPERATIONS["ListObjectsV2"].output) == ("ListObjectsV2Output", "")
    assert OPERATIONS["DeleteObjects"].checksum_required
    assert not OPERATIONS["PutObject"].checksum_required
