"""Through nginx as it is set up on its page: whatever a client signs arrives as it was sent, of whatever size."""

import os
import urllib.request

import boto3
from botocore.config import Config

URL = os.environ["AWS_ENDPOINT_URL"]
KEYS = ["a b+c%d?e&f=g", "//two//slashes/", "ἀμφορεύς/ö", "dots/../and/./more", "k" * 900, "%2F%41"]
CONTEXT = {"cafile": os.environ["AWS_CA_BUNDLE"]}


def main() -> None:
    for style in ("path", "virtual"):
        s3 = boto3.client("s3", config=Config(s3={"addressing_style": style}, retries={"total_max_attempts": 1}))
        for number, key in enumerate(KEYS):
            s3.put_object(Bucket="photos", Key=key, Body=key.encode(), Metadata={"n": str(number)})
            found = s3.get_object(Bucket="photos", Key=key)
            assert found["Body"].read() == key.encode()
            assert found["Metadata"] == {"n": str(number)}
            link = s3.generate_presigned_url("get_object", Params={"Bucket": "photos", "Key": key})
            assert link.startswith("https://")
            assert opened(link) == key.encode()
        assert sorted(KEYS) == sorted(
            e["Key"] for e in s3.list_objects_v2(Bucket="photos")["Contents"] if e["Key"] in KEYS
        )
        large = os.urandom(20 << 20)
        s3.put_object(Bucket="photos", Key="large", Body=large)
        assert (
            s3.get_object(Bucket="photos", Key="large", Range="bytes=7000000-7000009")["Body"].read()
            == (large[7000000:7000010])
        )
        assert s3.get_object(Bucket="photos", Key="large")["Body"].read() == large
    print(f"{URL}: {len(KEYS)} keys in both styles, by header and by link, and 20 MiB")


def opened(link: str) -> bytes:
    import ssl

    with urllib.request.urlopen(link, context=ssl.create_default_context(**CONTEXT)) as answer:
        body: bytes = answer.read()
        return body


if __name__ == "__main__":
    main()
