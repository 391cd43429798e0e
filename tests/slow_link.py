"""Join a host to a switch by a link that is slow and loses frames, in both directions, also where there is no netem.

    python slow_link.py HOST_SPACE HOST_DEVICE SWITCH_SPACE SWITCH_DEVICE DELAY_SECONDS LOSS

It makes a tap device in each of the two network namespaces, says so by a line, and carries frames between them until it
is killed. The devices end with it.
"""

import collections
import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def make_tap(space, device):
    """Make a device in a namespace, which this process then is in; returns its descriptor."""
    with open(f"/run/netns/{space}") as entered:
        if ctypes.CDLL(None, use_errno=True).setns(entered.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the namespace")
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def carry(one, other, delay, loss):
    """Carry frames between two descriptors; a part of them, `loss`, is dropped."""
    draw, under_way = random.Random(0), collections.deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for ready in select.select([one, other], [], [], wait)[0]:
            frame = os.read(ready, 65536)
            if draw.random() >= loss:
                under_way.append((time.monotonic() + delay, other if ready == one else one, frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, to, frame = under_way.popleft()
            try:
                os.write(to, frame)
            except OSError:  # the device is down
                continue


if __name__ == "__main__":
    ends = make_tap(*sys.argv[1:3]), make_tap(*sys.argv[3:5])
    print("ready", flush=True)
    carry(*ends, float(sys.argv[5]), float(sys.argv[6]))
