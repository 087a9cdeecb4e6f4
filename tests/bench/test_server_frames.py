"""The load's reader of frames: however the bytes are cut, the frames are the same."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.server_frames import ServerFrames
from headrace.protocol.frames import frame_header

TEXT = 1
HANDSHAKE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
SIZES = st.one_of(st.integers(0, 130), st.integers(65_530, 65_540))


@given(st.lists(SIZES, max_size=6), st.lists(st.integers(1, 300), min_size=1, max_size=20), st.sampled_from([None, 48]))
def test_frames_are_whole_however_they_come(sizes: list[int], cuts: list[int], most: int | None) -> None:
    payloads = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    data = HANDSHAKE + b"".join(frame_header(TEXT, len(payload)) + payload for payload in payloads)
    frames, found, at = ServerFrames(), list[bytearray](), 0
    for cut in cuts:
        found += frames.take(data[at : at + cut], most)
        at += cut
    found += frames.take(data[at:], most)
    assert found == [payload[:most] for payload in payloads]
