"""Updates per second through the pipeline on one core: from the bytes of a node's frame to the JSON text of ours.

Measured: parse, update, dedupe, decode, body, append to the memory bus, frame assembly. Not measured: sockets. Frames
are those of the shipped demo recording, in the envelope of RPC PubSub; every one gets a signature or a key and slot of
its own, as on the chain, so that nothing is a duplicate.
"""

import argparse
import asyncio
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pybase64

import headrace
from headrace.bus import BusSettings
from headrace.bus.memory import MemoryBus
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import BATCH_MAX, Pipeline
from headrace.model.events import Message
from headrace.model.keys import b58encode
from headrace.model.updates import AccountUpdate, AnyUpdate, TransactionUpdate
from headrace.protocol.frames import EventFramer
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from headrace.sources.recording import Recording
from headrace.sources.rpc_pubsub.frames import Stamp, read
from headrace.sources.rpc_pubsub.subscriptions import Subscription
