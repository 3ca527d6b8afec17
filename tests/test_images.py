import io
import itertools
import json
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from genbench.datasets.encoded import labels_of, open_source
from genbench.errors import GenbenchError
from genbench.images import open_images, read_images

RNG = np.random.default_rng(5)
COLOUR = RNG.integers(0, 256, (6, 4, 6, 3), dtype=np.uint8)  # N, H, W, C: taller than wide would hide a swap
GREY = RNG.integers(0, 256, (6, 4, 6), dtype=np.uint8)


def png(array, **kwargs):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kwargs.pop("format", "PNG"), **kwargs)
    return buffer.getvalue()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_folder(path, members):
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.fixture(params=["folder", "zip"])
def write(request, tmp_path):
    number = itertools.count()
    if request.param == "folder":
        return lambda members: write_folder(tmp_path / f"images{next(number)}", {"notes.txt": b"no image", **members})
    return lambda members: write_zip(tmp_path / f"images{next(number)}.zip", {"notes.txt": b"no image", **members})


def refuse(match, path, **kwargs):
    with pytest.raises(GenbenchError, match=match) as caught:
        read_images(path, **kwargs)
    assert "\n" not in str(caught.value)


def test_colour_pixels_come_back_exactly_in_lexical_order(write):
    path = write({f"b/{i}.png": png(COLOUR[i]) for i in (2, 3)} | {f"a/{i}.png": png(COLOUR[i]) for i in (0, 1)})
    images, labels = read_images(path)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, COLOUR[:4].transpose(0, 3, 1, 2))
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 0, 1, 1]


def test_grey_becomes_three_equal_channels_and_back_but_colour_never_grey(write):
    path = write({f"{i}.png": png(GREY[i]) for i in range(6)})
    images, labels = read_images(path, channels=3)
    np.testing.assert_array_equal(images, np.repeat(GREY[:, None], 3, axis=1))
    assert labels is None
    saved_as_rgb = write({f"{i}.png": png(np.repeat(GREY[i][..., None], 3, axis=2)) for i in range(6)})
    np.testing.assert_array_equal(read_images(saved_as_rgb, channels=1)[0], GREY[:, None])
    refuse("colour", write({"0.png": png(COLOUR[0])}), channels=1)


def test_labels_of_dataset_json_win_over_shard_folders(write):
    table = {"labels": [["00/1.png", 7], ["00/0.png", 2]], "classes": list("abcdefghi")}
    path = write({"00/0.png": png(GREY[0]), "00/1.png": png(GREY[1]), "dataset.json": json.dumps(table).encode()})
    assert read_images(path)[1].tolist() == [2, 7]
    assert labels_of(open_source(path))[1] == tuple("abcdefghi")
    assert read_images(write({"00/0.png": png(GREY[0]), "01/1.png": png(GREY[1]), "dataset.json": b'{"labels": null}'}))[1] is None


@pytest.mark.parametrize("table", [b"[1]", b"{", b'{"labels": [["0.png", 1.5]]}', b'{"labels": [["x.png", 1]]}', b'{"labels": 3}'])
def test_a_wrong_dataset_json_is_refused(write, table):
    refuse("dataset.json", write({"0.png": png(GREY[0]), "dataset.json": table}))


def test_what_is_not_8_bit_grey_or_rgb_is_refused(write):
    alpha = np.concatenate([COLOUR[0], np.full((4, 6, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(read_images(write({"0.png": png(alpha)}))[0][0], COLOUR[0].transpose(2, 0, 1))
    alpha[0, 0, 3] = 254
    refuse("transparent", write({"0.png": png(alpha)}))
    refuse("8 bits", write({"0.png": png(GREY[0].astype(np.uint16) * 200)}))
    refuse("8 bits", write({"0.png": deep_rgb_png()}))
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0]).quantize(8).save(buffer, "PNG")
    refuse("palette", write({"0.png": buffer.getvalue()}))
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[0]).convert("CMYK").save(buffer, "JPEG")
    refuse("CMYK", write({"0.png": buffer.getvalue()}))
    frames = [Image.fromarray(frame) for frame in COLOUR[:3]]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    refuse("animated", write({"0.png": buffer.getvalue()}))
    refuse("GIF|decoded", write({"0.png": png(GREY[0], format="GIF")}))


def deep_rgb_png():
    """A 16-bit RGB PNG, which Pillow would cut down to 8 bits without a word."""
    rows = b"".join(b"\0" + RNG.bytes(4 * 6) for _ in range(4))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_lossy_images_are_refused_where_they_are_not_allowed_whatever_their_name(write):
    jpeg = png(COLOUR[0], format="JPEG")
    path = write({"0.png": jpeg})
    assert read_images(path)[0].shape == (1, 3, 4, 6)
    refuse("lossy JPEG", path, allow_lossy=False)
    refuse("lossy WEBP", write({"0.png": png(COLOUR[0], format="WEBP", quality=50)}), allow_lossy=False)
    exact = write({"0.png": png(COLOUR[0], format="WEBP", lossless=True)})
    np.testing.assert_array_equal(read_images(exact, allow_lossy=False)[0][0], COLOUR[0].transpose(2, 0, 1))


def test_sizes_must_agree_and_nothing_is_resized(write):
    refuse("mixed sizes: 1.png is 4x5 where 4x6", write({"0.png": png(GREY[0]), "1.png": png(GREY[1, :, :5])}))
    refuse("4x6, not 6x6", write({"0.png": png(GREY[0]), "1.png": png(GREY[1])}), size=6)
    assert read_images(write({"0.png": png(GREY[0, :, :4]), "1.png": png(GREY[1, :, :4])}), size=4)[0].shape == (2, 1, 4, 4)


def test_large_images_are_decoded_side_by_side_and_come_back_in_order(write):
    images = RNG.integers(0, 256, (9, 140, 150, 3), dtype=np.uint8)
    files = {f"{i}.png": png(image) for i, image in enumerate(images)}
    np.testing.assert_array_equal(read_images(write(files))[0], images.transpose(0, 3, 1, 2))
    refuse("5.png cannot be decoded", write(files | {"5.png": files["5.png"][:4000]}))
    refuse("mixed sizes: 7.png is 140x149", write(files | {"7.png": png(images[7, :, :149])}))


def test_images_of_any_size_are_reduced_by_area_on_request_but_never_enlarged(write):
    path = write({"0.png": png(np.kron(GREY[0], np.ones((3, 3), np.uint8))), "1.png": png(GREY[1, :, :4])})
    opened = open_images(path, resize=4)
    assert opened.images.shape == (2, 1, 4, 4)
    np.testing.assert_array_equal(opened.images[:], [[GREY[0, :, 1:5]], [GREY[1, :, :4]]])  # 12x18: the centre 12x12, in means of 3x3
    with pytest.raises(GenbenchError, match=r"1.png is 4x4: images are reduced to 5x5, never enlarged"):
        open_images(path, resize=5).images[:]


def test_damaged_truncated_and_missing_files_are_one_clear_line(write, tmp_path):
    whole = png(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    refuse("0.png cannot be decoded", write({"0.png": whole[: len(whole) // 2]}))
    refuse("0.png cannot be decoded", write({"0.png": b""}))
    refuse("whatever its name says", write({"0.png": b"no image at all"}))
    refuse("does not exist", tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    refuse("neither a folder nor a file", tmp_path / "pipe.png")
    refuse("no regular file", tmp_path)
    (tmp_path / "pipe.png").unlink()
    (tmp_path / "text.txt").write_text("hello")
    refuse("neither a folder nor a zip", tmp_path / "text.txt")


def test_a_name_that_would_break_the_line_is_refused(write):
    refuse("cannot be printed", write({"0\n.png": png(GREY[0])}))


def test_an_empty_folder_or_zip_holds_no_images(tmp_path):
    refuse("holds no images", write_folder(tmp_path / "empty", {"a/readme.txt": b""}))
    refuse("holds no images", write_zip(tmp_path / "empty.zip", {"readme.txt": b""}))


def test_decompression_bombs_are_refused_before_they_are_decoded(write):
    def header_only(width, height):
        data = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        chunk = struct.pack(">I", 13) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
        body = zlib.compress(b"\0" * 100)
        return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse("decompression bomb", write({"0.png": header_only(8192, 8193)}))
        refuse("exceeds limit|decompression bomb", write({"0.png": header_only(60_000, 60_000)}))


def test_zip_members_that_lie_outside_repeat_or_are_encrypted_are_refused(tmp_path):
    for name in ("../0.png", "/0.png", "a/../../0.png", "C:\\0.png"):
        refuse("outside the archive", write_zip(tmp_path / "evil.zip", {name: png(GREY[0])}))
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("0.png", png(GREY[0]))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("0.png", png(GREY[1]))
    refuse("there twice", tmp_path / "twice.zip")
    path = write_zip(tmp_path / "flag.zip", {"0.png": png(GREY[0])})
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    refuse("encrypted", path)


def test_a_damaged_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"0.png": png(COLOUR[0]), "1.png": png(COLOUR[1])})
    data = path.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    refuse("neither a folder nor a zip", tmp_path / "cut.zip")
    flipped = bytearray(data)
    flipped[60] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    refuse("'0.png' is damaged", tmp_path / "flipped.zip")


@pytest.mark.parametrize("key", ["arr_0", "samples", "images", "whatever"])
def test_npz_and_npy_in_either_layout(tmp_path, key):
    for name, array in {"nhwc": COLOUR, "nchw": COLOUR.transpose(0, 3, 1, 2)}.items():
        np.savez(tmp_path / f"{name}.npz", **{key: array})
        np.save(tmp_path / f"{name}.npy", array)
        for suffix in ("npz", "npy"):
            images, labels = read_images(tmp_path / f"{name}.{suffix}")
            np.testing.assert_array_equal(images, COLOUR.transpose(0, 3, 1, 2))
            assert labels is None
    np.save(tmp_path / "grey.npy", GREY)
    np.testing.assert_array_equal(read_images(tmp_path / "grey.npy", channels=3)[0], np.repeat(GREY[:, None], 3, axis=1))


def test_npz_labels_are_integers_or_one_hot(tmp_path):
    labels = np.array([3, 1, 0, 2, 2, 1])
    np.savez(tmp_path / "a.npz", COLOUR, labels)
    assert read_images(tmp_path / "a.npz")[1].tolist() == labels.tolist()
    np.savez_compressed(tmp_path / "b.npz", samples=COLOUR, labels=np.eye(4, dtype=np.float32)[labels])
    assert read_images(tmp_path / "b.npz")[1].tolist() == labels.tolist()
    np.savez(tmp_path / "c.npz", samples=COLOUR, labels=labels[:5])
    refuse("labels are", tmp_path / "c.npz")


def test_arrays_that_are_not_uint8_images_are_refused(tmp_path):
    def refused(match, array):
        np.save(tmp_path / "x.npy", array)
        np.savez(tmp_path / "x.npz", samples=array)
        refuse(match, tmp_path / "x.npy")
        refuse(match, tmp_path / "x.npz")

    refused("float32; images are expected as uint8", COLOUR.astype(np.float32) / 255)
    refused("pickled objects", np.array([{"code": 1}], dtype=object))
    refused("shape", COLOUR[0, 0])
    refused("at least one", COLOUR[:0])
    refused("neither 1 nor 3", np.zeros((2, 4, 4, 5), np.uint8))
    refused("NHWC or NCHW", np.zeros((2, 3, 3, 3), np.uint8))
    np.savez(tmp_path / "many.npz", a=COLOUR, b=COLOUR)
    refuse("holds 'a', 'b'", tmp_path / "many.npz")


def test_truncated_and_lying_arrays_are_refused_before_memory_is_spent(tmp_path):
    np.save(tmp_path / "x.npy", COLOUR)
    np.savez(tmp_path / "x.npz", samples=COLOUR)
    for name in ("x.npy", "x.npz"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(data[: len(data) * 2 // 3])
        refuse("damaged|neither", tmp_path / f"cut-{name}")
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04K\x01.")
    refuse("pickled objects|no array", tmp_path / "pickle.npy")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)})
    write_zip(tmp_path / "lie.npz", {"samples.npy": buffer.getvalue() + b"\0" * 1000})
    refuse("not what the file holds", tmp_path / "lie.npz")


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("name", ["a.zip", "b.npz", "c.npy"])
def test_whatever_bytes_are_damaged_the_answer_is_images_or_one_clear_line(tmp_path, name):
    table = json.dumps({"labels": [["0.png", 1], ["1.jpg", 0]]})
    write_zip(tmp_path / "a.zip", {"0.png": png(COLOUR[0]), "1.jpg": png(COLOUR[1], format="JPEG"), "dataset.json": table})
    np.savez_compressed(tmp_path / "b.npz", samples=COLOUR, labels=np.arange(6))
    np.save(tmp_path / "c.npy", COLOUR)
    whole, path = (tmp_path / name).read_bytes(), tmp_path / f"damaged-{name}"
    rng, refusals = np.random.default_rng(1), []
    for turn in range(300):
        data = bytearray(whole[: rng.integers(len(whole))] if turn % 3 == 0 else whole)
        for _ in range(0 if turn % 3 == 0 else rng.choice([1, 3, 20])):
            data[rng.integers(min(len(data), 400 if turn % 3 == 1 else len(data)))] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_images(path)
        except GenbenchError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert not [message for message in refusals if "\n" in message]
