"""Every bound of the system, in one place (law 10). Injected: a test shrinks one by ``replace(LIMITS, ...)``.

Sizes are bytes, times seconds, unless the name says otherwise. A bound that is exceeded is answered with
backpressure until a deadline and then with a typed error (errors.TooLarge, errors.Overloaded, errors.Full).
"""

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All bounds; a field's comment says who relies on it."""

    # -- data path (chunks/, pools/, segments/); the first two were chosen by bench/thresholds.py
    inline_size_max: int = 4 * KIB  # a body up to this rides in the state
    pack_size_max: int = 128 * KIB  # a body up to this is packed with others; above it is cut into chunks
    chunk_size: int = 4 * MIB  # plaintext of one chunk, at most
    frame_size: int = 128 * KIB  # plaintext of one frame
    cell_size: int = 64 * KIB  # a shard is verified in cells of this many bytes
    pack_bytes_max: int = 4 * MIB  # stored bytes of one pack
    pack_slots_max: int = 512
    packs_in_flight_max: int = 2  # packs of one process that are being written at once
    pack_waiting_bytes_max: int = 64 * MIB  # small bodies that wait for the next pack
    read_piece_max: int = 2 * MIB  # stored bytes of a chunk that are read from the pool at once
    frame_tables_bytes_max: int = 8 * MIB  # decoded frame tables that one process keeps
    segment_size_max: int = 256 * MIB  # a segment is sealed when it would grow past this
    segment_files_open_max: int = 256  # cached read descriptors per disk and process
    segment_records_max: int = 8192  # a segment is sealed when it holds this many: their headers wait in memory
    direct_shard_size_min: int = 128 * KIB  # shards from this size on bypass the page cache
    pack_cell_size: int = 16 * KIB  # cells of a pack's shards: small reads verify less
    read_now_bytes_max: int = 128 * KIB  # a longer read always goes to a thread
    disk_write_threads: int = 2  # one syncs while the other gathers and writes
    disk_read_threads: int = 4
    disk_seconds_max: float = 30.0  # a disk that holds one call this long has failed
    hedge_seconds_min: float = 0.01  # a read waits so long for a disk, at least, before it reads around it
    hedge_seconds_max: float = 1.0  # and at most; a disk that says nothing for so long is read around from the start
    hedge_share: float = 0.25  # shard reads that hedging may add, as a share of all
    index_trust_seconds: float = 60.0  # how long, at least, a census of the segments vouches for a miss in the index
    buffers_wait_seconds_max: float = 30.0  # a request that finds no room for its chunk gives up after this
    in_flight_bytes_max: int = 16 * MIB  # memory of one request's chunks that are being stored at once
    chunks_in_flight_max: int = 12  # and no more of them, however small
    increment_bytes_max: int = 12 * MIB  # memory of chunks that were stored before their manifest page is committed
    chunks_per_commit_max: int = 64  # and no more of them, however small
    embedded_bytes_max: int = 16 * MIB  # a larger body has a manifest; a smaller one's slices ride in its version
    slices_embedded_max: int = 64  # if there are no more of them
    manifest_page_entries_max: int = 256
    buffers_bytes_max: int = 512 * MIB  # chunk buffers of one process, all requests together
    aside_bytes_max: int = 128 * MIB  # of bodies whose requests wait for a buffer, beyond the buffers

    # -- backends (backends/)
    local_threads: int = 8  # of one local backend, for all that waits for its disk
    local_piece_size: int = 1 * MIB  # a local file is read in pieces of this size, one ahead
    local_gather_size: int = 512 * KIB  # smaller pieces of a source are gathered up to this before they are written
    local_directories_held_max: int = 128  # directories known to be durable, held open by one local backend
    local_names_held_max: int = 65_536  # of one directory, while it is listed; of more, it is read again
    local_batch_max: int = 1024  # paths that are listed or deleted before the loop has its turn again

    # -- state (state/)
    batch_mutations_max: int = 256  # mutations in one group commit
    batch_bytes_max: int = 8 * MIB
    commit_queue_max: int = 4096  # mutations that wait for the committer
    commit_wait_seconds_max: float = 30.0
    state_key_size_max: int = 4 * KIB
    state_value_size_max: int = 1 * MIB
    scan_rows_max: int = 10_000
    log_bytes_before_checkpoint: int = 64 * MIB  # and never less than the last snapshot's size
    log_files_before_checkpoint: int = 64  # each restart and each eviction begins one
    state_index_size_max: int = 4 * TIB  # of the sparse file of the index, if its file system is that large

    # -- space: three reserves per file system, as fractions; writes stop first, deletes last (ENGINE 22)
    reserve_writes: float = 0.05
    reserve_compaction: float = 0.03
    reserve_deletes: float = 0.01
    near_full: float = 0.15  # from here on writers are slowed down and compaction hurries, more and more to the reserve
    near_full_delay_seconds_max: float = 0.1  # that each body and each chunk waits once the reserve is reached
    reserve_bytes_max: int = 8 * GIB  # a reserve never asks for more than this, so that huge disks are not wasted

    # -- collection (jobs/)
    collect_grace_seconds: float = 30.0  # observed by the collector itself on a monotonic clock
    collect_batch_rows_max: int = 500
    compact_live_ratio: float = 0.6  # a sealed segment below this is rewritten
    compact_live_ratio_full: float = 0.9  # on a disk that has no more room than is held back
    pin_seconds_max: float = 12 * 3600.0  # a reader older than this no longer holds back the collector

    # -- jobs (jobs/)
    jobs_piece_seconds: float = 0.25  # one piece of background work; then another job has its turn
    jobs_piece_rows: int = 2000
    jobs_busy_share: float = 0.25  # of the time, that jobs take while requests change things
    jobs_idle_seconds_max: float = 30.0  # an idle store is looked at this seldom
    state_scrub_seconds: float = 24 * 3600.0  # every byte of the state's copies and index is verified this often
    tier_seconds: float = 24 * 3600.0  # what lies in another pool than its classes ask for is looked for this often
    scrub_seconds: float = 30 * 24 * 3600.0  # every shard is read and verified this often; 0: only when told to
    scrub_bytes_per_second: int = 0  # of each disk; 0: what keeps the period, and never less than the next
    scrub_bytes_per_second_min: int = 8 * MIB
    scrub_bytes_per_second_max: int = 256 * MIB  # also when an operator wants it now
    scrub_first_seconds: float = 3600.0  # after which a disk that was never verified is
    fsck_findings_max: int = 10_000  # told one by one; the rest are counted

    # -- HTTP (http/)
    head_bytes_max: int = 64 * KIB
    header_count_max: int = 200
    url_bytes_max: int = 16 * KIB
    body_bytes_max: int = 6 * GIB  # put_size_max and room for aws-chunked framing; more is refused unseen
    read_ahead_bytes_max: int = 64 * KIB  # received beyond what the handler asked for, then the client waits
    connections_max: int = 4096  # per worker
    body_buffer_bytes: int = 256 * KIB  # one pooled receive buffer
    head_seconds_max: float = 60.0
    idle_seconds_max: float = 120.0
    body_idle_seconds_max: float = 60.0
    write_idle_seconds_max: float = 60.0
    drain_bytes_max: int = 1 * MIB  # an unread body up to this is drained after an early answer, else closed
    linger_seconds_max: float = 5.0  # after a refusal we read on this long, so that the client can see the answer
    shutdown_seconds_max: float = 30.0

    # -- S3 (objects/, s3/)
    copies_anew_max: int = 2  # copies under another key of one process that run at once: each reads and writes
    commit_attempts_max: int = 100  # times that a write is planned anew because others changed the same key
    read_ahead_slices_max: int = 2  # slices of one object that are fetched ahead of the reader
    buckets_cached_max: int = 1000  # decoded bucket records of one process
    owed_manifests_max: int = 100_000  # of failed writes, to be given up once the state lets us; more wait for our end
    object_size_max: int = 5 * TIB
    put_size_max: int = 5 * GIB
    part_size_min: int = 5 * MIB
    part_count_max: int = 10_000
    key_bytes_max: int = 1024
    metadata_bytes_max: int = 2 * KIB  # user metadata, names and values together
    list_keys_max: int = 1000
    delete_keys_max: int = 1000
    buckets_per_account_max: int = 10_000
    keys_max: int = 1000  # keys that a store seals under, the customers' own not counted
    key_retire_seconds: float = 24 * 3600.0  # a rotated key's old version may still seal what was begun before
    key_versions_max: int = 100  # of one key: each rotation adds one, the re-wrapping of what it sealed drops the old
    xml_bytes_max: int = 8 * MIB
    tags_per_object_max: int = 10
    tags_per_bucket_max: int = 50
    clock_skew_seconds_max: float = 900.0
    presign_seconds_max: int = 7 * 24 * 3600
    signing_keys_max: int = 1024  # derived signing keys, and as many parsed credentials, that a process keeps
    chunk_framing_bytes_max: int = 4 * KIB  # of an aws-chunked body that are held: one line, or all trailers
    chunk_header_bytes_max: int = 256  # of one aws-chunked chunk header
    trailers_max: int = 8  # trailing headers of an aws-chunked body
    signed_chunk_size_min: int = 8 * KIB  # of every signed chunk but the last, as S3 demands
    replay_seconds: float = 900.0  # how long the first answer of a conditional write is kept for a retry
    replay_rows_max: int = 100_000
    admin_request_bytes_max: int = 1 * MIB  # one request on the control socket

    # -- remote stores (backends/remote, backends/s3, backends/azure), each backend for itself
    remote_connections_max: int = 64  # requests at once; more wait
    remote_connect_seconds_max: float = 10.0
    remote_answer_seconds_max: float = 60.0  # until an answer begins, or its next bytes come
    remote_idle_seconds_max: float = 4.0  # of a connection that is used again; servers close theirs after 5 and more
    remote_rate_min: int = 64 * KIB  # a second: a body that is sent has this much longer
    remote_document_bytes_max: int = 8 * MIB  # of an answer that is no object
    remote_range_size: int = 8 * MIB  # a longer read is made of ranges
    remote_ranges_ahead_max: int = 3  # ranges of one read that are fetched before they are wanted
    remote_multipart_size_min: int = 100 * MIB  # what is this large, or of unknown size, is sent in parts
    remote_part_size: int = 16 * MIB  # of the first parts; later ones are larger (uploads.py)
    remote_parts_at_once_max: int = 4  # parts of one upload on their way
    remote_upload_bytes_max: int = 256 * MIB  # held by all streams that are being sent
    copy_resume_size_min: int = 16 * MIB  # a copy to a local backend of this size on goes on after an interruption
    copies_at_once_max: int = 8  # files of one recursive copy between backends
    remote_batches_at_once_max: int = 4  # requests of one batch deletion

    # -- the shared metadata database (metadatadb/)
    metadatadb_name_bytes_max: int = 200  # of a namespace, or of a name in it
    metadatadb_key_bytes_max: int = 4 * KIB  # JSON of a key or member
    metadatadb_value_bytes_max: int = 1 * MIB  # JSON of a value
    metadatadb_state_bytes_max: int = 256 * MIB  # all of a namespace: every replica has it in memory, twice at times
    metadatadb_object_bytes_max: int = 1 * GIB  # of one object that is read
    metadatadb_transaction_ops_max: int = 10_000
    metadatadb_group_ops_max: int = 10_000  # operations that become durable by one PUT
    metadatadb_group_bytes_max: int = 8 * MIB
    metadatadb_pending_ops_max: int = 100_000  # that wait to become durable; then writers wait
    metadatadb_pending_bytes_max: int = 64 * MIB
    metadatadb_pending_seconds_max: float = 30.0  # a writer waits this long for room among them
    metadatadb_commit_seconds_max: float = 15.0  # until an operation is durable or its writer is told that it is not
    metadatadb_fetches_max: int = 8  # entries that a replica fetches at once
    metadatadb_entries_loose_max: int = 64  # entries of the journal before they are put into the head
    metadatadb_entries_unsettled_max: int = 256  # that one replica writes before it syncs and settles at once
    metadatadb_tail_entries_max: int = 1024  # entries in the head before a snapshot is made
    metadatadb_tail_bytes_max: int = 1 * MIB  # or an eighth of the last snapshot, if that is more
    metadatadb_writers_max: int = 10_000  # writers whose last entry is remembered
    metadatadb_watched_keys_max: int = 10_000  # changed keys of one name told to a watcher; more are "all of it"


LIMITS = Limits()
