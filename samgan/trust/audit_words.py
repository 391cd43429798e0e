"""What an audit found, in sentences and as a table."""

from samgan.metrics.constants import PERCENTILE
from samgan.pages import markdown_table
from samgan.trust.documents import AuditDocument, Estimate, FoundSign, Membership

HEADER = ("what", "synthetic [95 %]", "expected [95 %]", "")
PAIRS_SHOWN = 16
"""Of each kind of images by one measure, the closest first."""
PAIR = "A SYNTHETIC image (left) beside a REAL training image (right)."
REAL_PAIR = "A REAL held-out image (left) beside a REAL training image (right)."
NO_PROOF = (
    "This does not prove that no patient can be recognised: the audit does not look for parts of images, for copies "
    "that were changed more than the planted copies that it finds, or for what the network knows but does not show."
)
COPIES_FIRST = "Look at the pairs: those of the copies come first."
CLOSE_IS_NO_COPY = (
    "A close image is not always a copy: smooth images are close to everything, and if the generator repeats a few "
    "layouts, they are close to the same few patients. Look at the pairs."
)
BLIND = (
    "Held-out images lie as close to training images as such copies do: look at the pairs of held-out images, and "
    "prepare the set again, split by patient."
)


def describe_verdict(document: AuditDocument) -> str:
    """What was found and what that does not prove."""
    close: list[str] = []
    not_close: list[str] = []
    pulled: list[str] = []
    for label, measured in document.measures.items():
        closer, nearest = measured.closer, measured.nearest_is_training
        low, high = (100 * bound for bound in (closer.expected.low, closer.expected.high))
        (close if closer.found else not_close).append(
            f"{_percent(closer.share)} of the synthetic images are {_closer(closer)}, {label} ({closer.count} of "
            f"{document.counts.synthetic}); of new real images, {low:.1f} to {high:.1f} % would be"
        )
        if nearest.found:
            expected = nearest.expected
            pulled.append(
                f"{_percent(nearest.share)} of the synthetic images have a training image as their nearest real image, "
                f"{label}; {100 * expected.value:.1f} % are expected, and up to {100 * expected.high:.1f} % by chance"
            )
    if document.copies:
        copied = (
            f"{'1 image is a copy' if document.copies == 1 else f'{document.copies} images are copies'} (of "
            f"{document.counts.synthetic}; closer to a training image, in pixels, than any held-out image, and than "
            "chance explains)"
        )
        parts, end = ["Signs of memorisation", copied, *close, *pulled], COPIES_FIRST
    elif close:
        parts, end = ["Signs of memorisation", *close, *pulled], CLOSE_IS_NO_COPY
    elif document.missed:
        missed = " and ".join(f"{100 * share:.0f} % ({change})" for change, share in document.missed.items())
        found = f"of planted copies that were changed a little, it would have found {missed}"
        parts, end = ["This audit could not have found copies", found, *pulled, *not_close], BLIND
    elif pulled:
        parts, end = ["A trace of the training images, but no copies seen", *pulled, *not_close], NO_PROOF
    else:
        parts, end = ["No sign of memorisation", *not_close], NO_PROOF
    sentences = [f"{parts[0]}: {'. '.join(parts[1:])}.", end]
    if document.membership:
        sentences.append(_of_membership(document.membership))
    return " ".join(sentences)


def _of_membership(membership: Membership) -> str:
    auc = membership.auc
    area = f"AUC {auc.value:.3f}, interval {auc.low:.3f} to {auc.high:.3f}"
    if not membership.found:
        return f"The discriminator was not shown to tell training images from held-out ones ({area})."
    how = "" if auc.value > 0.5 else " by lower logits than those of held-out ones"
    return (
        f"The discriminator tells training images from held-out ones{how} ({area}): to that extent, anybody who has "
        "the checkpoint can tell who was in the training set. An exported generator holds no discriminator."
    )


def table_rows(document: AuditDocument) -> list[tuple[str, str, str, str]]:
    """What was compared, the number of synthetic images, the number to expect, and whether it is a sign."""
    word = {True: "sign", False: "no sign"}
    title = "copies: closer than all held-out images, in pixels, and than chance explains"
    rows = [(title, str(document.copies), "0", word[bool(document.copies)])]
    for label, measured in document.measures.items():
        for title, sign in (
            (_closer(measured.closer), measured.closer),
            ("nearest real image is a training image", measured.nearest_is_training),
        ):
            rows.append((f"{title}, {label}", _percent(sign.share), _percent(sign.expected), word[sign.found]))
    if membership := document.membership:
        auc = membership.auc
        value = f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
        rows.append(("discriminator: AUC, training against held-out images", value, "0.500", word[membership.found]))
    mirrored, alike = document.mirrored, document.alike
    held_out = f"held-out {_percent(mirrored.held_out)}"
    rows.append(("heart on the wrong side", _percent(mirrored.synthetic), held_out, "-"))
    title = f"like an earlier one (correlation above {1 - alike.distance:g}), of {alike.images}"
    rows.append((title, _percent(alike.synthetic), f"training {_percent(alike.training)}", "-"))
    return rows


def remarks(document: AuditDocument) -> list[str]:
    """What was compared, what the audit can find, and what it left out, in one or two sentences each."""
    counts, data = document.counts, document.data
    real = (
        f"{one.images} {word} images ({one.patients} patients)"
        for word, one in (("training", counts.training), ("held-out", counts.held_out))
    )
    found = [
        f"Compared: {counts.synthetic} synthetic images, {' and '.join(real)} of {data.name}, "
        f"{', '.join(data.classes)}, split by {data.split_by}."
    ]
    for label, measured in document.measures.items():
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in measured.planted.items())
        found.append(f"Planted copies of training images that the audit would have found, {label}: {shares}.")
    found += document.notes
    return found + [f"Skipped: {skipped.what} ({skipped.reason})." for skipped in document.skipped]


def format_audit(document: AuditDocument) -> str:
    """The table and the sentences that `samgan audit` prints."""
    lines = markdown_table(HEADER, table_rows(document))
    return "\n".join([*lines, "", document.verdict, *remarks(document)]) + "\n"


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _closer(sign: FoundSign) -> str:
    """What the sign counts. With too few held-out images, the closest one replaces the 1st percentile."""
    few = sign.expected.value > PERCENTILE
    return f"closer to a training image than {'all' if few else '99 % of'} held-out images"
