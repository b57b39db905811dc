"""The readers of the three data sets, on small layouts built by hand and on the sample."""

import csv
import json
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from colibri.core.clip import Clip, VideoRef
from colibri.core.errors import UserError
from colibri.core.video import open_ref
from colibri.curate.sources import SOURCES, get_source
from colibri.curate.sources.base import LICENCES, SourceConfig, one_column, read_captions, read_csv
from colibri.curate.sources.humanvid import HumanVid
from colibri.curate.sources.openvid import OpenVid, video_of
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = (
    "video,caption,aesthetic score,motion score,temporal consistency score,"
    "camera motion,frame,fps,seconds\n"
)
SCORES = ",5.1,2.5,0.99,pan_left,241,24.0,10.04"


def clips_of(name: str, data_root: Path, **settings: str) -> list[Clip]:
    source, config = get_source(name), SourceConfig(**settings)
    layout = source.find(data_root, config)
    assert layout is not None
    return list(source.clips(layout, config))


def facts_of(name: str, data_root: Path, **settings: str) -> str:
    layout = get_source(name).find(data_root, SourceConfig(**settings))
    assert layout is not None
    return "\n".join(layout.facts)


def reasons(clips: list[Clip]) -> list[str | None]:
    return [clip.problem[0] if clip.problem else None for clip in clips]


def magic(tmp_path: Path, table: str, *files: str) -> Path:
    root = tmp_path / "MagicData"
    (root / "videos").mkdir(parents=True, exist_ok=True)
    (root / "MagicData.csv").write_text(table, encoding="utf-8")
    for file in files:
        (root / "videos" / file).write_bytes(b"video " + file.encode())
    return tmp_path


def openvid(tmp_path: Path, rows: str, table: str = "OpenVidHD.csv") -> Path:
    train = tmp_path / "OpenVid" / "data" / "train"
    train.mkdir(parents=True, exist_ok=True)
    (train / table).write_text(HEADER + rows, encoding="utf-8")
    (tmp_path / "OpenVid" / "OpenVidHD").mkdir(exist_ok=True)
    return tmp_path


def zipped(path: Path, files: dict[str, bytes], *, parts: int = 1) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    if parts > 1:
        content = path.read_bytes()
        path.unlink()
        step = -(-len(content) // parts)
        for index in range(parts):
            suffix = f"a{chr(97 + index)}"
            piece = content[index * step : (index + 1) * step]
            path.with_name(f"{path.stem}_part_{suffix}").write_bytes(piece)


def humanvid(tmp_path: Path, *urls: str, name: str = "pexels-horizontal-urls-new.txt") -> Path:
    root = tmp_path / "HumanVid"
    root.mkdir(exist_ok=True)
    (root / name).write_text("\n".join(urls), encoding="utf-8")
    return tmp_path


URL = "https://videos.pexels.com/video-files/4919657/4919657-hd_1920_1080_24fps.mp4"


# ---- tables ----


def test_cells_may_hold_commas_quotes_lines_and_control_characters(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"two, ""three""\nfour \0 \x1b[31m"\r\n')
    (row,) = read_csv(table)
    assert row.values == {"a": "1", "b": 'two, "three"\nfour \0 \x1b[31m'}
    assert row.problem is None


CELL = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), max_size=5))
def test_whatever_a_csv_writer_writes_is_read_back(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "t.csv"
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("a", "b"), *rows])
        found = list(read_csv(table))
    assert [row.problem for row in found] == [None] * len(rows)
    assert [(row.values["a"], row.values["b"]) for row in found] == rows


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from('ab,"\r\n\0')))
def test_no_text_makes_reading_fail_or_go_on_for_ever(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "t.csv"
        table.write_bytes(b"a,b\n" + text.encode())
        found = list(read_csv(table))
    assert all(row.problem or len(row.values) == 2 for row in found)
    assert len(found) <= len(text)


def test_a_cell_of_a_megabyte_is_read(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1," + "x" * 1_000_000 + "\n")
    (row,) = read_csv(table)
    assert len(row.values["b"]) == 1_000_000


def test_a_row_with_too_few_or_too_many_cells_is_bad_and_the_next_is_read(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1\n1,2,3\n\n1,2\n")
    rows = list(read_csv(table))
    assert [bool(row.problem) for row in rows] == [True, True, False]
    assert rows[0].problem == "t.csv line 2: 1 cells under 2 column names"
    assert rows[2].line == 5


@pytest.mark.parametrize("rest", ["3,4\n5,6\n", '3,"4"\n5,"6"\n'])
def test_a_quote_left_open_spoils_its_own_line_only(tmp_path: Path, rest: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text('a,b\n1,"open\n' + rest)
    rows = list(read_csv(table))
    assert [row.values for row in rows] == [{}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]
    assert rows[0].problem is not None
    assert rows[0].problem.startswith("t.csv line 2: ")
    assert [row.line for row in rows] == [2, 3, 4]


def test_bytes_that_are_not_utf8_become_replacement_characters(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(b"a\ncaf\xe9\n")
    assert [row.values["a"] for row in read_csv(table)] == ["caf\ufffd"]


@pytest.mark.parametrize("content", [b"", b"\n\n", "a,b\n".encode("utf-16"), b'"a,b\n1,2\n'])
def test_a_table_without_a_readable_header_is_an_error(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    with pytest.raises(UserError):
        list(read_csv(table))


def test_a_column_is_never_guessed_between_two(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("Text,caption,id\n")
    with pytest.raises(UserError, match=r"'caption' or 'Text'.*--x"):
        one_column(table, ("caption", "text"), None, "--x", "caption")
    assert one_column(table, ("caption", "text"), "Text", "--x", "caption") == "Text"
    table.write_text("caption,Caption,id\n")
    with pytest.raises(UserError, match="'caption' or 'Caption'"):
        one_column(table, ("caption",), None, "--x", "caption")
    table.write_text("caption,caption\n")
    with pytest.raises(UserError, match="'caption' or 'caption'"):
        one_column(table, ("caption",), "caption", "--x", "caption")


# ---- rows of every source ----


def test_names_that_leave_the_data_set_are_refused_as_rows(tmp_path: Path) -> None:
    names = ["../a.mp4", "/etc/a.mp4", "videos/../../a.mp4", "..\\a.mp4", "C:\\a.mp4", "a\0.mp4"]
    root = magic(tmp_path, "video_path,caption\n" + "".join(f"{n},x\n" for n in names), "a.mp4")
    assert reasons(clips_of("magicmotion", root)) == ["unsafe_path"] * len(names)


def test_a_link_out_of_the_data_root_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"secret")
    root = magic(tmp_path / "data", "video_path,caption\nvideos/a.mp4,x\n")
    (root / "MagicData" / "videos" / "a.mp4").symlink_to(outside)
    (clip,) = clips_of("magicmotion", root)
    with pytest.raises(Exception, match="leads out of the data root"):
        open_ref(clip.ref, root)


def test_of_two_rows_for_one_clip_the_first_usable_counts(tmp_path: Path) -> None:
    table = "video_path,caption\nvideos/a.mp4,\nvideos/a.mp4,one\na.mp4,two\nvideos/a.mp4,one\n"
    clips = clips_of("magicmotion", magic(tmp_path, table, "a.mp4"))
    assert reasons(clips) == ["no_caption", None, "duplicate_row", "duplicate_row"]


def test_two_files_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    root = magic(tmp_path, "video_path,caption\na.mp4,x\nvideos/one/a.mp4,y\nb.mp4,z\n")
    videos = root / "MagicData" / "videos"
    for folder, content in (("one", b"1"), ("two", b"22")):
        (videos / folder).mkdir()
        (videos / folder / "a.mp4").write_bytes(content)
        (videos / folder / "b.mp4").write_bytes(b"the same")
    clips = clips_of("magicmotion", root)
    assert reasons(clips) == ["ambiguous_file", None, None]
    assert clips[1].ref.video == "MagicData/videos/one/a.mp4"


def test_an_id_does_not_depend_on_where_the_video_lies(tmp_path: Path) -> None:
    table = "video_path,caption\nvideos/a.mp4,x\n"
    loose = magic(tmp_path / "loose", table, "a.mp4")
    packed = magic(tmp_path / "packed", table)
    zipped(packed / "MagicData" / "videos.zip", {"videos/a.mp4": b"video"})
    (first,), (second,) = clips_of("magicmotion", loose), clips_of("magicmotion", packed)
    assert first.id == second.id
    assert first.ref != second.ref


# ---- MagicData ----


def test_magicdata_is_read_from_the_parts_of_its_split_zip(tmp_path: Path) -> None:
    root = magic(tmp_path, "video_path,caption\nvideos/a.mp4,x\nvideos/b.MP4,y\n")
    path = root / "MagicData" / "videos.zip"
    zipped(path, {"videos/a.mp4": b"a" * 500, "videos/b.MP4": b"b" * 500}, parts=3)
    for part in path.parent.glob("videos_part_*"):
        part.rename(part.with_name(part.name.replace("videos_", "videos.zip.")))
    (path.parent / "masks.zip").write_bytes(b"")
    clips = clips_of("magicmotion", root)
    assert reasons(clips) == [None, None]
    assert clips[0].ref == VideoRef(video="MagicData/videos.zip.part_aa", member="videos/a.mp4")
    assert open_ref(clips[1].ref, root).read() == b"b" * 500
    facts = facts_of("magicmotion", root)
    assert "videos.zip.part_aa and on, 3 parts" in facts
    assert "not read: masks.zip" in facts


def test_magicdata_without_its_first_part_says_so_in_every_row(tmp_path: Path) -> None:
    root = magic(tmp_path, "video_path,caption\nvideos/a.mp4,x\n")
    (root / "MagicData" / "videos.zip.part_ab").write_bytes(b"rest")
    (clip,) = clips_of("magicmotion", root)
    assert clip.problem is not None
    assert clip.problem[0] == "missing_file"
    assert "videos.zip.part_ab" in clip.problem[1]


def test_magicdata_takes_the_id_where_a_row_has_no_path(tmp_path: Path) -> None:
    root = magic(tmp_path, "videoid,video_path,text\na,,x\nq,videos/b.mp4,y\n", "a.mp4", "b.mp4")
    clips = clips_of("magicmotion", root)
    assert [clip.ref.video for clip in clips] == [
        "MagicData/videos/a.mp4",
        "MagicData/videos/b.mp4",
    ]
    assert "captions from column 'text'" in facts_of("magicmotion", root)


@pytest.mark.parametrize("header", ["video_path,path,caption", "caption,size", "video_path,size"])
def test_magicdata_with_two_or_no_columns_to_choose_from_is_an_error(
    tmp_path: Path, header: str
) -> None:
    with pytest.raises(UserError):
        facts_of("magicmotion", magic(tmp_path, header + "\n"))


# ---- OpenVid ----


def test_openvid_reads_flat_and_split_archives_and_loose_files(tmp_path: Path) -> None:
    names = ["---_iRTHryQ_13_0to241.mp4", "bbbbbbbbbbb_2_5to200.mp4", "ccccccccccc_0_0to150.mp4"]
    root = openvid(tmp_path, "".join(f'{name},"A dog, running."{SCORES}\n' for name in names))
    folder = root / "OpenVid" / "OpenVidHD"
    zipped(folder / "OpenVidHD_part_1.zip", {names[0]: b"first"})
    zipped(folder / "OpenVidHD_part_15.zip", {names[1]: b"second" * 50}, parts=2)
    (folder / names[2]).write_bytes(b"third")
    clips = clips_of("openvid", root)
    assert reasons(clips) == [None] * 3
    assert [open_ref(clip.ref, root).read() for clip in clips] == [
        b"first",
        b"second" * 50,
        b"third",
    ]
    assert clips[0].group == "openvid/---_iRTHryQ"
    assert clips[0].labels["motion score"] == 2.5
    assert clips[0].labels["camera motion"] == "pan_left"
    assert clips[0].caption == "A dog, running."
    assert {clip.licence for clip in clips} == {"cc-by-4.0"}


def test_openvid_counts_hd_clips_once_and_says_what_it_leaves(tmp_path: Path) -> None:
    row = f"aaaaaaaaaaa_0_0to150.mp4,x{SCORES}\n"
    root = openvid(openvid(tmp_path, row), row, table="OpenVid-1M.csv")
    zipped(root / "OpenVid" / "OpenVid_part0.zip", {"aaaaaaaaaaa_0_0to150.mp4": b"x"})
    assert reasons(clips_of("openvid", root)) == [None]
    assert "OpenVid-1M.csv is there too, not read" in facts_of("openvid", root)
    assert reasons(clips_of("openvid", root, subset="both")) == [None, "duplicate_row"]
    with pytest.raises(UserError, match="hd, 1m or both"):
        clips_of("openvid", root, subset="4k")


def test_openvids_map_decides_between_two_archives_and_is_compared(tmp_path: Path) -> None:
    name, gone = "aaaaaaaaaaa_0_0to150.mp4", "ddddddddddd_0_0to150.mp4"
    root = openvid(tmp_path, f"{name},x{SCORES}\n{gone},y{SCORES}\n")
    folder = root / "OpenVid" / "OpenVidHD"
    zipped(folder / "OpenVidHD_part_1.zip", {name: b"old"})
    zipped(folder / "OpenVidHD_part_2.zip", {name: b"newer"})
    assert reasons(clips_of("openvid", root)) == ["ambiguous_file", "missing_file"]
    listed = [{"part2": [name]}, {"part7": [gone]}]
    (folder / "OpenVidHD.json").write_text(json.dumps(listed))
    clips = clips_of("openvid", root)
    assert open_ref(clips[0].ref, root).read() == b"newer"
    assert clips[1].problem is not None
    assert "OpenVidHD_part_7" in clips[1].problem[1]
    facts = facts_of("openvid", root)
    assert "1 files of parts that are not on disk" in facts
    assert "1 files in another part than it says" in facts


@pytest.mark.parametrize(
    "content", ["{", '{"part1": "x"}', '[["a"]]', '[{"p": ["a"]}]', "[" * 9999]
)
def test_a_map_of_another_shape_is_an_error(tmp_path: Path, content: str) -> None:
    root = openvid(tmp_path, f"a.mp4,x{SCORES}\n")
    (root / "OpenVid" / "OpenVidHD" / "OpenVidHD.json").write_text(content)
    with pytest.raises(UserError, match=r"OpenVidHD\.json is not a list"):
        facts_of("openvid", root)


def test_a_damaged_archive_costs_its_own_clips_only(tmp_path: Path) -> None:
    root = openvid(tmp_path, f"a.mp4,x{SCORES}\nb.mp4,y{SCORES}\n")
    folder = root / "OpenVid" / "OpenVidHD"
    zipped(folder / "OpenVidHD_part_1.zip", {"a.mp4": b"a"})
    (folder / "OpenVidHD_part_2.zip").write_bytes(b"PK\3\4 cut short")
    clips = clips_of("openvid", root)
    assert reasons(clips) == [None, "missing_file"]
    assert clips[1].problem is not None
    assert "OpenVidHD_part_2.zip" in clips[1].problem[1]


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("---_iRTHryQ_13_0to241.mp4", "---_iRTHryQ"),
        ("ab_123_4567_6_0to10.mp4", "ab_123_4567"),
        ("celebv_-_Bdf9C0SAU_0.mp4", "celebv_-_Bdf9C0SAU"),
        ("pixabay_videos_1234.mp4", "pixabay_videos_1234"),
        ("some.clip.mp4", "some.clip"),
    ],
)
def test_clips_of_one_video_share_a_group(name: str, video: str) -> None:
    assert video_of(name) == video


def test_scores_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    root = openvid(tmp_path, "a.mp4,x,nan,inf,,static,abc,24,1e400\n")
    (clip,) = clips_of("openvid", root)
    assert clip.labels == {"fps": 24.0, "camera motion": "static"}


# ---- HumanVid ----


def test_humanvid_without_captions_refuses_every_row_for_that(tmp_path: Path) -> None:
    root = humanvid(tmp_path, URL)
    (root / "HumanVid" / "videos").mkdir()
    (root / "HumanVid" / "videos" / URL.rsplit("/", 1)[-1]).write_bytes(b"v")
    assert reasons(clips_of("humanvid", root)) == ["no_caption"]
    assert "--humanvid.captions FILE" in facts_of("humanvid", root)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", "file,text\nany/{name},A woman walks.\n"),
        ("c.txt", "file,text\n{name},A woman walks.\n"),
        ("c.jsonl", '\ufeff{{"file": "{name}", "text": "A woman walks."}}\n\n'),
    ],
)
def test_humanvid_takes_size_and_rate_from_names_and_captions_from_a_file(
    tmp_path: Path, name: str, content: str
) -> None:
    root = humanvid(tmp_path, URL)
    file = URL.rsplit("/", 1)[-1]
    folder = root / "HumanVid" / "pexels-my-h" / "videos" / "7"
    folder.mkdir(parents=True)
    (folder / file).write_bytes(b"v")
    captions = tmp_path / name
    captions.write_text(content.format(name=file), encoding="utf-8")
    (clip,) = clips_of("humanvid", root, captions=str(captions))
    assert clip.problem is None
    assert clip.caption == "A woman walks."
    assert clip.ref.video == f"HumanVid/pexels-my-h/videos/7/{file}"
    assert (clip.group, clip.licence) == ("humanvid/4919657", "pexels")
    assert [clip.labels[key] for key in ("width", "height", "fps")] == [1920, 1080, 24]


def test_lines_that_are_no_urls_are_bad_rows(tmp_path: Path) -> None:
    lines = ["http://[x/a.mp4", "words", "https://x/", "https://x/1-hd_1_1_2.5.3fps.mp4", "x/.."]
    found = reasons(clips_of("humanvid", humanvid(tmp_path, *lines)))
    assert found == ["bad_row", "bad_row", "bad_row", "missing_file", "unsafe_path"]


def test_withdrawn_lists_and_the_rendered_part_are_left_and_named(tmp_path: Path) -> None:
    root = humanvid(humanvid(tmp_path, URL), URL, name="pexels-horizontal-urls.txt")
    (root / "HumanVid" / "training_video").mkdir()
    assert len(clips_of("humanvid", root)) == 1
    facts = facts_of("humanvid", root)
    assert "not read: pexels-horizontal-urls.txt" in facts
    assert "the rendered part is not read" in facts
    with pytest.raises(UserError, match="only the Pexels part"):
        facts_of("humanvid", root, subset="ue")


def test_two_different_captions_for_one_file_are_not_guessed_between(tmp_path: Path) -> None:
    root = humanvid(tmp_path, URL)
    file = URL.rsplit("/", 1)[-1]
    (root / "HumanVid" / "videos").mkdir()
    (root / "HumanVid" / "videos" / file).write_bytes(b"v")
    captions = tmp_path / "c.csv"
    captions.write_text(f"file,text\n{file},one\n{file},one\n")
    assert reasons(clips_of("humanvid", root, captions=str(captions))) == [None]
    captions.write_text(f"file,text\n{file},one\n{file},two\n")
    assert reasons(clips_of("humanvid", root, captions=str(captions))) == ["ambiguous_caption"]


def test_captions_in_json_keep_their_line_separators_and_lose_half_surrogates(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(
        '{"file": "a", "text": "one\u2028two"}\n{"file": "b", "text": "\\ud800"}\n'
        '{"file": "c", "text": null}\n',
        encoding="utf-8",
    )
    assert read_captions(path) == {"a": ("one\u2028two",), "b": ("?",), "c": ("",)}


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"file": "a"}', '{"file": 3, "text": ""}', '{"file": "a", "text": 4}']
)
def test_a_line_that_is_no_caption_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"file": "a", "text": "x"}\n' + line)
    with pytest.raises(UserError, match="line 2"):
        read_captions(path)


# ---- finding ----


def test_two_folders_that_fit_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "MagicData.csv").write_text("video_path,caption\n")
    with pytest.raises(UserError, match=r"one or .*two.*--magicmotion\.root"):
        facts_of("magicmotion", tmp_path)
    assert facts_of("magicmotion", tmp_path, root="two")


def test_a_data_set_behind_a_link_out_of_the_root_is_refused_at_once(tmp_path: Path) -> None:
    magic(tmp_path / "elsewhere", "video_path,caption\n")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "MagicData").symlink_to(tmp_path / "elsewhere" / "MagicData")
    with pytest.raises(UserError, match="leads out of --data-root"):
        facts_of("magicmotion", tmp_path / "root")


@pytest.mark.parametrize("root", ["..", "/", "none", "empty"])
def test_a_named_folder_has_to_be_inside_and_hold_the_data_set(tmp_path: Path, root: str) -> None:
    (tmp_path / "empty").mkdir()
    for source in SOURCES.values():
        with pytest.raises(UserError, match=rf"--{source.name}\.root"):
            source.find(tmp_path, SourceConfig(root=root))


def test_a_data_root_that_is_not_there_is_an_error_and_an_empty_one_holds_nothing(
    tmp_path: Path,
) -> None:
    for source in SOURCES.values():
        assert source.find(tmp_path, SourceConfig()) is None
        with pytest.raises(UserError, match="--data-root"):
            source.find(tmp_path / "none", SourceConfig())


def test_a_setting_that_would_not_be_honoured_is_refused(tmp_path: Path) -> None:
    for name, given_settings in (
        ("magicmotion", {"subset": "hd"}),
        ("openvid", {"captions": "x"}),
        ("humanvid", {"caption_column": "x"}),
    ):
        with pytest.raises(UserError, match="has no meaning"):
            get_source(name).find(tmp_path, SourceConfig(**given_settings))


def test_sources_are_found_by_name_and_by_dotted_name() -> None:
    assert get_source("openvid") is SOURCES["openvid"]
    assert isinstance(get_source("colibri.curate.sources.humanvid:HumanVid"), HumanVid)
    with pytest.raises(UserError, match="did you mean openvid"):
        get_source("openvd")
    for name in (":x", "json:loads", "no.such:Thing", "colibri.curate.sources:Nothing"):
        with pytest.raises(UserError, match="cannot be loaded"):
            get_source(name)


def test_every_source_has_a_known_licence_and_only_pexels_is_flagged() -> None:
    flagged = {name: LICENCES[source.licence].flagged for name, source in SOURCES.items()}
    assert flagged == {"magicmotion": False, "openvid": False, "humanvid": True}


# ---- the sample ----


def test_the_samples_rows_carry_the_problems_that_are_plain_from_its_tables(sample: Path) -> None:
    captions = str(sample / "HumanVid" / "captions.csv")
    clips = clips_of("magicmotion", sample) + clips_of("openvid", sample)
    clips += clips_of("humanvid", sample, captions=captions)
    found = Counter(reasons(clips))
    assert found[None] >= 60
    assert {"missing_file", "duplicate_row", "unsafe_path", "no_caption"} <= found.keys()
    assert isinstance(SOURCES["openvid"], OpenVid)
    usable = [clip for clip in clips if clip.problem is None]
    assert len({clip.id for clip in usable}) == len(usable)
