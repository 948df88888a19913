"""S3 and Azure mean the same as every backend: the public cases of ostraka.testing, on real stores."""

import asyncio

import pytest
from remote_services import Account, Served

from ostraka.testing.backends import CASES, Case

# moto's conditions are not atomic, and it answers 500 to one of two who write the same key at once
ALONE = [c for c in CASES if not c.rivals and c.name != "writers_of_one_path_leave_one_of_theirs_whole"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_s3_on_ostraka_serve(case: Case, own: Served) -> None:
    asyncio.run(case(own.empty()))


@pytest.mark.parametrize("case", ALONE, ids=str)
def test_s3_on_moto(case: Case, moto: Served) -> None:
    asyncio.run(case(moto.empty()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_azure_on_azurite(case: Case, azure: Account) -> None:
    asyncio.run(case(azure.empty()))
