"""Text files that people bring: whatever editor saved them, and what is none."""

import os

import pytest

from trainer.cli.reward_server import read_token
from trainer.errors import ConfigError, UserError, brief
from trainer.reward_server.config import load_server_config
from trainer.settings.config_file import load_config, read_table
from trainer.texts import lines_of, read_text

TEXT = "größer\nein „Schild“ 看板 🍎\nlast"
SAVED = {
    "UTF-8": TEXT.encode("utf-8"),
    "UTF-8 with its mark": b"\xef\xbb\xbf" + TEXT.encode("utf-8"),
    "UTF-16 little-endian": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16 big-endian": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-32": b"\xff\xfe\0\0" + TEXT.encode("utf-32-le"),
    "Windows line ends": TEXT.replace("\n", "\r\n").encode("utf-8"),
    "old Mac line ends": TEXT.replace("\n", "\r").encode("utf-8"),
}
NO_TEXT = {
    "cp1252": (b"a cat\na gr\xfcner dog", "byte 0xFC in line 2 is not UTF-8: save it as UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it has zero bytes, so it is no text"),
    "zero bytes": (b"a cat\0\0", "it has zero bytes, so it is no text"),
    "UTF-16 without its mark": ("a cat".encode("utf-16-le"), "it has zero bytes, so it is no text: save it as UTF-8"),
    "half of UTF-16": (b"\xff\xfea\0b", "byte 0x62 in line 1 is not UTF-16-LE: save it as UTF-8"),
    "too large": (b"a" * 101, "it has more than 100 bytes"),
}


@pytest.mark.parametrize("how", SAVED)
def test_a_text_is_the_same_however_it_was_saved(tmp_path, how):
    (tmp_path / "a.txt").write_bytes(SAVED[how])
    assert read_text(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize("what", NO_TEXT)
def test_what_is_no_text_is_told_with_the_remedy(tmp_path, what):
    data, reason = NO_TEXT[what]
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_text(tmp_path / "a.txt", most=100)
    assert str(caught.value).startswith(f"{tmp_path / 'a.txt'}: cannot be read ({reason}")


def test_lines_end_where_a_line_feed_stands_and_nowhere_else():
    inside = "a\u2028b\u2029c\x85d\x0ce\x1cf\x0bg"
    assert lines_of(f"{inside}\r\n{inside}\r{inside}\n") == [inside, inside, inside, ""]


@pytest.fixture
def no_files(tmp_path):
    """What is there in place of a file."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return {
        tmp_path / "folder": "it is a folder",
        tmp_path / "pipe": "it is a pipe or a device",
        "/dev/zero": "it is a pipe or a device",
        tmp_path / "gone": "No such file or directory",
        tmp_path / ("long" * 100): "File name too long",
        tmp_path / "a\0b": "embedded null byte",
    }


def test_only_a_regular_file_is_read_by_whoever_reads_one(no_files, tmp_path, config_file):
    for path, reason in no_files.items():
        quoted = str(path).replace("\0", "\\u0000")
        readers = {
            "config": lambda path=path: read_table(tmp_path / path),
            "server": lambda path=path: load_server_config(tmp_path / path),
            "token": lambda path=path: read_token(tmp_path / path),
            "prompts": lambda quoted=quoted: load_config(config_file(head=f'prompts = "{quoted}"')),
        }
        for name, read in readers.items():
            with pytest.raises(ConfigError) as caught:
                read()
            told = "has a control character" if name == "prompts" and "\0" in str(path) else reason
            assert told in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", SAVED)
def test_a_config_may_be_saved_in_any_of_these_ways(config_file, how):
    path = config_file(head='prompts = ["größer", "ein „Schild“ 看板 🍎"]')
    text = path.read_text("utf-8")
    mark = {"UTF-16 little-endian": "utf-16-le", "UTF-16 big-endian": "utf-16-be", "UTF-32": "utf-32-le"}
    ends = {"Windows line ends": "\r\n", "old Mac line ends": "\r"}
    encoding = mark.get(how, "utf-8")
    data = text.replace("\n", ends.get(how, "\n")).encode(encoding)
    path.write_bytes(("\ufeff".encode(encoding) if how not in ("UTF-8", *ends) else b"") + data)
    assert load_config(path).prompts == ("größer", "ein „Schild“ 看板 🍎")


WINDOWS = "write a Windows path in single quotes, or with / in place of \\"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"lora": r'start = "C:\models\flux.safetensors"'}, WINDOWS),
        ({"lora": r'start = "C:\Users\me\a.safetensors"'}, WINDOWS),
        ({"lora": r'start = "C:\temp\new.safetensors"'}, f"has a control character: in TOML, {WINDOWS}"),
        ({"run": r'folder = "D:\runs\flux"'}, f"has a control character: in TOML, {WINDOWS}"),
        ({"init": r'image = ["D:\bilder\a.png"]'}, WINDOWS),
        ({"head": "prompts = [“a cat”]"}, 'write plain quotes, "..."'),
        ({"lora": "start = '~nobody-of-this-name/a.safetensors'"}, "there is no file"),
        ({"grpo": "clip = " + "1" * 5000}, "not a TOML file"),
        ({"grpo": "anchors = 1" + "0" * 400}, "must have at most 64 bits"),
        ({"grpo": "clip = 1" + "0" * 400}, "must have at most 64 bits"),
        ({"grpo": "clip = nan"}, "grpo.clip = nan: must be a number"),
        ({"model": "guidance = inf"}, "model.guidance = inf: must be a finite number"),
        ({"head": "prompts = " + "[" * 5000}, "too deep"),
        ({"rewards": "[[rewards]]\nkind = 'test_texts:Own'\noptions = {since = 1979-05-27}"}, "since = datetime.date"),
    ],
)
def test_a_mistake_in_toml_is_one_line_with_the_remedy(config_file, sections, message):
    with pytest.raises(ConfigError) as caught:
        load_config(config_file(**sections))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1100


class Own:
    """A reward of one's own."""

    def __init__(self, since):
        pass

    def score(self, images, prompts):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (r'lora.start="C:\models\a"', WINDOWS),
        ("run.seed=1\nrun.iterations=3", "must be one value"),
        ("grpo.clip='a", "not TOML"),
        ("a" * 5000, "must be section.key=value"),
        (f"rewards.{'x' * 5000}=1", "cannot be set"),
    ],
)
def test_a_mistake_in_an_override_is_one_short_line(config_file, override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(config_file(), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_windows_path_needs_no_quotes_in_an_override(tmp_path, config_file):
    table = read_table(config_file(), [r"lora.start=C:\temp\new.safetensors"])
    assert table["lora"]["start"] == r"C:\temp\new.safetensors"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"one two", "must hold one token"),
        (b"one\ntwo", "must hold one token"),
        ("größe".encode(), "must hold one token"),
        (b"x" * 70_000, "it has more than 65,536 bytes"),
    ],
)
def test_a_token_is_one_word_and_never_shown(tmp_path, token, reason):
    (tmp_path / "token").write_bytes(token)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_token(tmp_path / "token")
    assert "two" not in str(caught.value)


def test_a_token_may_end_with_a_line_end_and_begin_with_a_mark(tmp_path):
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbfs3cret\r\n")
    assert read_token(tmp_path / "token") == "s3cret"


def test_an_error_is_one_line_of_bounded_length_whatever_it_names():
    assert str(UserError("a\nb\r\n\x1b[2Jc\u2028d\x85e\0f")) == "a b [2Jc d e f"
    long = str(UserError(f"first {'x' * 50_000} last"))
    assert len(long) < 1100
    assert (long[:6], long[-5:]) == ("first ", " last")
    assert len(brief("x" * 50_000)) < 200


@pytest.mark.parametrize(
    "sections",
    [
        {"head": f"prompts = ['{'x' * 50_000}', 3]"},
        {"head": f"prompts = '{'x' * 50_000}'"},
        {"head": f"'{'x' * 50_000}' = 3"},
        {"grpo": f"'{'x' * 50_000}' = 3"},
        {"grpo": f"clip = '{'x' * 50_000}'"},
        {"grpo": f"clip = {[1] * 20_000}"},
        {"sampling": f"sizes = {[[16, 16]] * 20_000}"},
        {"model": f"path = '{'x' * 50_000}'"},
        {"model": f"vae = '{'x' * 50_000}'"},
        {"run": f"stop_on = ['{'x' * 50_000}']"},
        {"rewards": f"[[rewards]]\nkind = '{'x' * 50_000}'"},
        {"rewards": f"[[rewards]]\nkind = 'clip'\noptions = {{ '{'x' * 50_000}' = 1 }}"},
        {"rewards": f"[[rewards]]\nkind = 'sharpness'\noptions = {{ '{'x' * 50_000}' = 1 }}"},
        {"rewards": f"[[rewards]]\nkind = 'sharpness'\nname = '{'x' * 50_000}'\nclip = [2, 1]"},
    ],
)
def test_no_error_prints_a_whole_value(config_file, sections):
    with pytest.raises(ConfigError) as caught:
        load_config(config_file(**sections))
    assert len(str(caught.value)) < 1100
    assert "\n" not in str(caught.value)
