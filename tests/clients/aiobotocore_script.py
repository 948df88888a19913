"""What a service on asyncio does with aiobotocore: many requests at once, streams, races, links.

Credentials and, for HTTPS, the authority (AWS_CA_BUNDLE) come from the environment, as everywhere with botocore.
"""

import asyncio
import hashlib
import ssl

import aiohttp
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

PART_SIZE = 5 << 20


def client(url):
    return get_session().create_client("s3", endpoint_url=url)


def sha256(body):
    return hashlib.sha256(body).hexdigest()


async def at_once(limit, coroutines):
    turn = asyncio.Semaphore(limit)

    async def wait(coroutine):
        async with turn:
            return await coroutine

    return await asyncio.gather(*map(wait, coroutines))


async def keys(s3, bucket, **where):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **where)
    return [o["Key"] async for page in pages for o in page.get("Contents", [])]


async def many(url, bucket, count):
    """Hundreds of small objects, written, listed, read and deleted by tasks that share the connections."""
    bodies = {f"jobs/{i % 7}/ä {i:04d}+.json": f'{{"job": {i}}}'.encode() for i in range(count)}
    async with client(url) as s3:
        await at_once(32, (s3.put_object(Bucket=bucket, Key=k, Body=b) for k, b in bodies.items()))
        assert await keys(s3, bucket, PaginationConfig={"PageSize": 50}) == sorted(bodies)

        async def read(key):
            answer = await s3.get_object(Bucket=bucket, Key=key)
            async with answer["Body"] as body:
                return await body.read()

        assert await at_once(32, map(read, bodies)) == list(bodies.values())
        gone = [k for k in bodies if k.startswith("jobs/3/")]
        answer = await s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in gone]})
        assert len(answer["Deleted"]) == len(gone), answer
        waiter = s3.get_waiter("object_not_exists")
        await waiter.wait(Bucket=bucket, Key=gone[0])
    return {k: sha256(b) for k, b in bodies.items() if k not in gone}


async def parts(url, bucket, seed):
    """A large object whose parts go up at once, and come down as a stream."""
    pieces = [bytes([seed % 251 + i]) * (PART_SIZE + i) for i in range(4)]
    where = {"Bucket": bucket, "Key": "large"}
    async with client(url) as s3:
        upload = (await s3.create_multipart_upload(**where, ContentType="video/x-test"))["UploadId"]

        async def send(number, piece):
            answer = await s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=piece)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        sent = await asyncio.gather(*(send(n, p) for n, p in enumerate(pieces, 1)))
        await s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": sent})
        seen, size = hashlib.sha256(), 0
        answer = await s3.get_object(**where)
        assert answer["ContentType"] == "video/x-test", answer
        async with answer["Body"] as body:
            async for piece in body.iter_chunks(1 << 18):
                seen.update(piece)
                size += len(piece)
        assert size == sum(map(len, pieces))
        assert seen.hexdigest() == sha256(b"".join(pieces))
    return {"large": seen.hexdigest()}


async def race(url, bucket, count):
    """Who creates an object first has it; who changes what another changed before is told."""

    async def put(s3, body, **condition):
        try:
            return await s3.put_object(Bucket=bucket, Key="leader", Body=body, **condition)
        except ClientError as e:
            assert e.response["Error"]["Code"] == "PreconditionFailed", e
            return None

    async with client(url) as s3:
        for condition in ({"IfNoneMatch": "*"}, None):
            if condition is None:
                condition = {"IfMatch": (await s3.head_object(Bucket=bucket, Key="leader"))["ETag"]}
            bodies = [f"{n} {condition}".encode() for n in range(count)]
            won = await asyncio.gather(*(put(s3, body, **condition) for body in bodies))
            assert sum(answer is not None for answer in won) == 1, won
            winner = next(body for body, answer in zip(bodies, won, strict=True) if answer)
            read = await s3.get_object(Bucket=bucket, Key="leader")
            assert await read["Body"].read() == winner
    return {"leader": sha256(winner)}


async def links(url, bucket):
    """A presigned URL that a plain HTTP client follows."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    async with client(url) as s3, aiohttp.ClientSession(connector=connector) as http:
        put = await s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "from a browser"})
        async with http.put(put, data=b"sent", skip_auto_headers=["content-type"]) as answer:
            assert answer.status == 200, await answer.text()
        get = await s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "from a browser"})
        async with http.get(get, headers={"Range": "bytes=1-2"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"en")
    return {"from a browser": sha256(b"sent")}
