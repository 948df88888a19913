"""Every operation that is built, by its name in the service model."""

from ostraka.s3.ops import (
    attributes_report,
    buckets,
    deletes,
    encryption,
    listings,
    multipart,
    reads,
    settings,
    tagging,
    writes,
)
from ostraka.s3.ops.call import Handler

HANDLERS: dict[str, Handler] = {
    **settings.HANDLERS,
    **buckets.HANDLERS,
    **encryption.HANDLERS,
    **listings.HANDLERS,
    **multipart.HANDLERS,
    **tagging.HANDLERS,
    **deletes.HANDLERS,
    **writes.HANDLERS,
    **reads.HANDLERS,
    **attributes_report.HANDLERS,
}
