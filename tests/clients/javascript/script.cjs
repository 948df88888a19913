// What a program with the AWS SDK for JavaScript does: one job on standard input, its result out. Knows nothing of
// Ostraka: a client is made with an endpoint, and with path style where the host name cannot carry a bucket.
"use strict";

const assert = require("node:assert/strict");
const { createHash } = require("node:crypto");
const { createReadStream, createWriteStream } = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");
const { NodeHttpHandler } = require("@smithy/node-http-handler");
const s3 = require("@aws-sdk/client-s3");
const { Upload } = require("@aws-sdk/lib-storage");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");

const hosts = new Set(); // every name that was looked up: where requests really went

// Stands for the wildcard record of a name server: every name is this machine.
function lookup(name, options, done) {
  hosts.add(name);
  const address = { address: "127.0.0.1", family: 4 };
  if (options.all) done(null, [address]);
  else done(null, address.address, address.family);
}

const agents = {
  httpAgent: new http.Agent({ keepAlive: true, maxSockets: 16, lookup }),
  httpsAgent: new https.Agent({ keepAlive: true, maxSockets: 16, lookup }),
};

function client(job) {
  return new s3.S3Client({
    endpoint: job.url,
    region: "us-east-1",
    forcePathStyle: job.style === "path",
    maxAttempts: 1,
    requestHandler: new NodeHttpHandler(agents),
  });
}

function sha256(data) {
  return createHash("sha256").update(data).digest("hex");
}

// A plain HTTP request that knows nothing of S3.
function send(method, url, body, headers = {}) {
  const secure = url.startsWith("https:");
  const agent = secure ? agents.httpsAgent : agents.httpAgent;
  return new Promise((resolve, reject) => {
    const request = (secure ? https : http).request(url, { method, headers, agent }, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () => resolve({ status: answer.statusCode, body: Buffer.concat(pieces).toString() }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return [error.name, error.$metadata.httpStatusCode];
  }
  throw new Error("it was not refused");
}

async function inParallel(items, work, width = 16) {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

const steps = {
  // Bodies as text, as bytes, as a stream; read whole, as a stream, in part; conditions; what is not there.
  async objects(job) {
    const c = client(job);
    const Bucket = job.bucket;
    const Key = "ä b/c+d&e=f?.txt";
    await c.send(new s3.CreateBucketCommand({ Bucket }));
    const Metadata = { colour: "red figure" };
    const put = await c.send(
      new s3.PutObjectCommand({ Bucket, Key, Body: "amphora", ContentType: "text/x-find", Metadata }),
    );
    assert.equal(put.ETag, `"${createHash("md5").update("amphora").digest("hex")}"`);
    const head = await c.send(new s3.HeadObjectCommand({ Bucket, Key }));
    assert.deepEqual([head.ContentLength, head.ContentType, head.Metadata], [7, "text/x-find", Metadata]);
    const got = await c.send(new s3.GetObjectCommand({ Bucket, Key }));
    assert.equal(await got.Body.transformToString(), "amphora");
    const part = await c.send(new s3.GetObjectCommand({ Bucket, Key, Range: "bytes=2-4" }));
    assert.deepEqual([part.ContentRange, await part.Body.transformToString()], ["bytes 2-4/7", "pho"]);

    const file = createReadStream(job.path);
    await c.send(new s3.PutObjectCommand({ Bucket, Key: "streamed", Body: file, ContentLength: job.size }));
    const back = await c.send(new s3.GetObjectCommand({ Bucket, Key: "streamed" }));
    await pipeline(back.Body, createWriteStream(job.copy));
    await c.send(new s3.PutObjectCommand({ Bucket, Key: "empty", Body: Buffer.alloc(0) }));
    await c.send(new s3.CopyObjectCommand({ Bucket, Key: "copy", CopySource: encodeURIComponent(`${Bucket}/${Key}`) }));

    const again = new s3.PutObjectCommand({ Bucket, Key, Body: "x", IfNoneMatch: "*" });
    assert.deepEqual(await refused(c.send(again)), ["PreconditionFailed", 412]);
    const stale = new s3.PutObjectCommand({ Bucket, Key, Body: "x", IfMatch: '"00000000000000000000000000000000"' });
    assert.deepEqual(await refused(c.send(stale)), ["PreconditionFailed", 412]);
    assert.deepEqual(await refused(c.send(new s3.GetObjectCommand({ Bucket, Key: "gone" }))), ["NoSuchKey", 404]);
    assert.deepEqual(await refused(c.send(new s3.HeadObjectCommand({ Bucket, Key: "gone" }))), ["NotFound", 404]);
    const nowhere = new s3.ListObjectsV2Command({ Bucket: `${Bucket}-gone` });
    assert.deepEqual(await refused(c.send(nowhere)), ["NoSuchBucket", 404]);
    const { Buckets } = await c.send(new s3.ListBucketsCommand({}));
    assert.ok(Buckets.some((b) => b.Name === Bucket));
  },

  // A stream of unknown length in parts, and one that is given up in the middle: Upload takes its parts away by itself.
  async multipart(job) {
    const c = client(job);
    const Bucket = job.bucket;
    await c.send(new s3.CreateBucketCommand({ Bucket }));
    const params = { Bucket, Key: "parts", Body: createReadStream(job.path), ContentType: "application/x-parts" };
    const upload = new Upload({ client: c, params, partSize: 5 << 20, queueSize: 3 });
    let loaded = 0;
    upload.on("httpUploadProgress", (progress) => (loaded = Math.max(loaded, progress.loaded)));
    const done = await upload.done();
    assert.equal(loaded, job.size);
    assert.equal(done.ETag, job.etag);
    const small = new Upload({ client: c, params: { Bucket, Key: "small", Body: Readable.from(["one ", "two"]) } });
    await small.done();

    const stop = new AbortController();
    async function* endless() {
      for (let i = 0; ; i++) {
        if (i === 12) stop.abort();
        yield Buffer.alloc(1 << 20, i);
      }
    }
    const given = { Bucket, Key: "given up", Body: Readable.from(endless()) };
    const cut = new Upload({ client: c, params: given, partSize: 5 << 20, queueSize: 1, abortController: stop });
    await assert.rejects(cut.done(), { name: "AbortError" });
  },

  // Links for somebody who has no SDK.
  async presigned(job) {
    const c = client(job);
    const Bucket = job.bucket;
    const Key = "path/ü +&%.txt";
    await c.send(new s3.CreateBucketCommand({ Bucket }));
    const put = await getSignedUrl(c, new s3.PutObjectCommand({ Bucket, Key, ContentType: "text/plain" }), {
      expiresIn: 300,
      signableHeaders: new Set(["content-type"]),
    });
    const type = { "content-type": "text/plain", "content-length": 9 };
    assert.equal((await send("PUT", put, "presigned", type)).status, 200);
    assert.equal((await send("PUT", put, "presigned", { ...type, "content-type": "text/html" })).status, 403);
    const named = { Bucket, Key, ResponseContentDisposition: 'attachment; filename="ü.txt"' };
    const get = await getSignedUrl(c, new s3.GetObjectCommand(named), { expiresIn: 300 });
    assert.deepEqual(await send("GET", get), { status: 200, body: "presigned" });
    assert.equal((await send("DELETE", get)).status, 403);
    const forged = await send("GET", get.replace("path", "pbth"));
    assert.equal(forged.status, 403);
    assert.match(forged.body, /SignatureDoesNotMatch/);
    const remove = await getSignedUrl(c, new s3.DeleteObjectCommand({ Bucket, Key }));
    assert.equal((await send("DELETE", remove)).status, 204);
    assert.equal((await send("GET", get)).status, 404);
    return { url: get };
  },

  // Some hundred, listed in pages and removed.
  async many(job) {
    const c = client(job);
    const Bucket = job.bucket;
    await c.send(new s3.CreateBucketCommand({ Bucket }));
    const names = Array.from({ length: 320 }, (_, i) => `${i % 3 ? "a" : "b"}/${String(i).padStart(4, "0")} <&>`);
    await inParallel(names, (Key) => c.send(new s3.PutObjectCommand({ Bucket, Key, Body: Key })));
    const found = [];
    for await (const page of s3.paginateListObjectsV2({ client: c, pageSize: 100 }, { Bucket })) {
      found.push(...page.Contents.map((o) => o.Key));
    }
    assert.deepEqual(found, [...names].sort());
    const folders = await c.send(new s3.ListObjectsV2Command({ Bucket, Delimiter: "/" }));
    assert.deepEqual(folders.CommonPrefixes.map((p) => p.Prefix), ["a/", "b/"]);
    const Objects = found.filter((Key) => Key !== names[5]).map((Key) => ({ Key }));
    const answer = await c.send(new s3.DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
    assert.deepEqual([answer.Deleted.length, answer.Errors], [319, undefined]);
    return { kept: names[5] };
  },
};

async function main() {
  const pieces = [];
  for await (const piece of process.stdin) pieces.push(piece);
  const job = JSON.parse(Buffer.concat(pieces).toString());
  const result = (await steps[job.step](job)) ?? {};
  process.stdout.write(JSON.stringify({ ...result, hosts: [...hosts].sort() }));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
