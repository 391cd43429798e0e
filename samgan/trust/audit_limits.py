"""What a reader needs to know to judge the numbers of an audit."""

from collections.abc import Iterator

from samgan.data import PreparedSet
from samgan.trust.audit_request import AuditRequest

ENOUGH_HELD_OUT = 99
"""The smallest number of held-out images that has a 1st percentile."""


def describe_limits(request: AuditRequest) -> Iterator[str]:
    """What a reader needs to know to judge the numbers."""
    yield from request.origin_notes
    yield from (f"{sentence}." for sentence in request.source.said)
    training, held_out = request.training, request.held_out
    if absent := sorted(set(training.by_class()) - set(held_out.by_class())):
        yield f"No image of {', '.join(absent)} is held out, so there is nothing to compare that class with."
    if len(held_out) < ENOUGH_HELD_OUT:
        yield (
            f"Only {len(held_out)} images are held out, so the threshold is the distance of the closest one and not "
            f"the 1st percentile. The percentile needs {ENOUGH_HELD_OUT} images, a narrow interval some thousand."
        )
    yield from _of_the_split(request.data)
    if request.known_held_out:
        yield (
            f"{request.known_held_out} held-out images are left out: their patients, or near duplicates of them, are "
            "among the training images."
        )
    if len(held_out) > held_out.counts.patients:
        yield (
            f"{len(held_out)} held-out images show {held_out.counts.patients} patients; the intervals count images of "
            "one patient together."
        )
    yield from _of_the_training(request)
    if len(held_out) < request.all_held_out:
        yield (
            f"{len(held_out)} of {request.all_held_out} held-out images are used: as many of each class as give the "
            "classes the same shares as among the training images. An audit of one class (--classes NAME) uses all of "
            "its images."
        )


def _of_the_split(data: PreparedSet) -> Iterator[str]:
    if not data.info.split_by.startswith("patient"):
        yield (
            f"The split is by {data.info.split_by}, not by patient, so a patient may be on both sides. Held-out "
            "images are then closer to training images than those of a new patient, and fewer copies are found."
        )
    elif data.info.matched_share is not None and data.info.matched_share < 1:
        yield (
            "The patients of some images are not known: held-out images may show patients of the training images, and "
            "fewer copies are then found."
        )


def _of_the_training(request: AuditRequest) -> Iterator[str]:
    source, data = request.source, request.data
    if source.config is None:
        yield (
            f"Which images {source.described.name} was trained on is not known; the audit assumes the training split "
            f"of {data.path.resolve().name}."
        )
    else:
        trained = set(source.config.data.classes or data.classes)
        if others := sorted(trained - set(request.classes or data.classes)):
            yield f"The model was also trained on {', '.join(others)}; the audit does not look for copies of those."
        if source.config.data.flip != "none":
            yield (
                "The model was trained with flips: half of its training images had the heart on the wrong side, so it "
                "was taught to make mirrored images, and mirrored copies count as copies."
            )
    if source.run is not None and (start := source.run.environment.start):
        yield (
            f"The training began with the networks of {start.run}; the audit does not look for copies of the images "
            "of that run."
        )
