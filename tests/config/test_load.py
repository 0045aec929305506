"""Every mistake in a config is one line that says where, what, and what is allowed."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator

from ddptrain.config import RunConfig, YoloConfig, load_config, resolve
from ddptrain.config.section import Section
from ddptrain.config.text import dump_inline, dump_yaml, parse_yaml
from ddptrain.errors import UserError

BASE = """\
classes: [a, b]
data:
  train: [{name: x, format: voc, root: r}]
  val: [{name: x, format: voc, root: r}]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def error(folder: Path, text: str, *overrides: str) -> str:
    """The one line, without the file's name in front."""
    path = write(folder, text)
    with pytest.raises(UserError) as caught:
        load_config(path, overrides, environ={})
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ").removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs: 3", "epochs: unknown key; known keys: checkpoint, classes, data, ema,"),
        ("trian: {epochs: 3}", "trian: unknown key; did you mean train?"),
        ("train: {epoch: 3}", "train.epoch: unknown key; did you mean epochs?"),
        ("train: {epoch: 3, micro_bach: 2}", "train.epoch: unknown key; did you mean epochs? (and 1 more)"),
        ("model: {siez: s}", "model.siez: unknown key; did you mean size?"),
        (
            "model: {name: fcos_resnet50_fpn, size: n}",
            "model.size: unknown key; known keys: anchor_sizes, aspect_ratios, checkpointing, compile,",
        ),
        ("model: {name: fcos_resnet50_fpn, pretraned: true}", "model.pretraned: unknown key; did you mean pretrained?"),
        ("model: {yolo: 1}", "model.yolo: unknown key; known keys: activation, anchors, backbone, checkpointing,"),
        ("loss: {box: [-1, 1, 1]}", "loss.box: [-1, 1, 1]: must be a number ≥ 0, or a list of one for each level"),
        ("1: 2", "1: unknown key; known keys: "),
    ],
)
def test_unknown_key(tmp_path: Path, text: str, expected: str) -> None:
    assert error(tmp_path, BASE + text).startswith(expected)


def test_unknown_key_in_a_list_item(tmp_path: Path) -> None:
    assert error(tmp_path, BASE, "data.train.0.rot=x") == "data.train.0.rot: unknown key; did you mean root?"
    text = BASE.replace("augment", "").replace("  train:", "  augment: {hflp: 0}\n  train:")
    assert error(tmp_path, text) == "data.augment.hflp: unknown key; did you mean hflip?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: '3'}", 'train.epochs: "3": must be a number'),
        ("train: {global_batch: 2.5}", "train.global_batch: 2.5: must be an integer"),
        ("train: {global_batch: 0}", "train.global_batch: 0: must be an integer ≥ 1"),
        ("train: {channels_last: 1}", "train.channels_last: 1: must be true or false"),
        ("train: {precision: bf17}", 'train.precision: "bf17": allowed: none, bf16 or fp16'),
        ("train: [1]", "train: [1]: must be a mapping of keys"),
        ("loss:", "loss: null: must be a mapping of keys"),
        ("ema: {decay: .nan}", "ema.decay: NaN: must be a finite number"),
        ("ema: {decay: 1}", "ema.decay: 1: must be a number < 1"),
        ("optimizer: {lr: 0}", "optimizer.lr: 0: must be a number > 0"),
        ("seed: true", "seed: true: must be an integer"),
        ("name: 3", "name: 3: must be text; put it in quotes"),
        ("name: a/b", 'name: "a/b": must be a plain file name: 1 to 200 bytes'),
        ("name: ''", 'name: "": must be a plain file name'),
        ("model: yolo", 'model: "yolo": must be a mapping of keys'),
        (
            "model: {strides: [8, 32]}",
            "model.strides: [8, 32]: must be consecutive powers of two from 4 to 64, such as [8, 16, 32]",
        ),
        ("schedule: {milestones: [0.9, 0.5]}", "schedule.milestones: must be rising fractions between 0 and 1"),
    ],
)
def test_wrong_type_or_range(tmp_path: Path, text: str, expected: str) -> None:
    assert error(tmp_path, BASE + text).startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.train=[]", "data.train: []: must have at least 1 item"),
        ("data.train.0=3", "data.train.0: 3: must be a mapping of keys"),
        ("data.train.0.annotated=foo", 'data.train.0.annotated: "foo": allowed: all or a list, such as [a, b]'),
        ("data.train.0.rename={x: 1}", "data.train.0.rename.x: 1: must be text; put it in quotes"),
        ("data.train.0.rename={x: c}", "data.train.0: 'c' is not a class of the run; classes are a, b"),
        ("data.train.0.format=vco", 'data.train.0.format: "vco": allowed: coco, yolo, voc'),
        ("classes=[a, a]", "classes: a is listed twice; name each class once"),
        ("classes=3", "classes: 3: must be a list, such as [a, b]"),
    ],
)
def test_wrong_value_in_data(tmp_path: Path, override: str, expected: str) -> None:
    assert error(tmp_path, BASE, override).startswith(expected)


def test_a_short_list_is_not_an_empty_one(tmp_path: Path) -> None:
    masks = [f"data.{part}.0.format=masks" for part in ("train", "val")]
    message = error(tmp_path, BASE, "task=segmentation", *masks, "model={name: mask2former, heads: [1]}")
    assert message == "model.heads: [1]: must have at least 4 items"


@pytest.mark.parametrize("name", ["foo", "yolo11", "3", "[yolo]", "null"])
def test_an_unknown_model_lists_the_known_ones_before_all_else(tmp_path: Path, name: str) -> None:
    message = error(tmp_path, BASE + f"model: {{name: {name}, pretrained_backbone: true}}")
    assert message.startswith("model.name: ")
    assert "allowed: yolo, fasterrcnn_" in message
    assert "ssdlite320_mobilenet_v3_large" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "classes: missing; it has no default (and 1 more)"),
        ("classes: [a]", "data: missing; it has no default"),
        ("classes: [a]\ndata: {train: [{name: x, format: voc, root: r}]}", "data.val: missing; it has no default"),
        ("# only a comment", "classes: missing; it has no default (and 1 more)"),
        ("- a\n- b", "a config is a mapping of keys, this is a list"),
        ("just text", "a config is a mapping of keys, this is a str"),
    ],
)
def test_not_a_whole_config(tmp_path: Path, text: str, expected: str) -> None:
    assert error(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b", ":6: not valid YAML: key 'name' is listed twice"),
        ("ema: {tau: 1.0, tau: 2.0}", ":5: not valid YAML: key 'tau' is listed twice"),
        ("\tname: a", ":5: not valid YAML: found character '\\t' that cannot start any token; indent with spaces"),
        ("ema: {tau: 1", ":5: not valid YAML: expected ',' or '}', but got '<stream end>'"),
        ("ema: [1, 2\nname: x", ":6: not valid YAML: expected ',' or ']', but got ':'"),
        ("[a, b]: 3", ":5: not valid YAML: a key must be one word"),
        ("name: !!python/object:os.system x", ":5: not valid YAML: could not determine a constructor"),
        ("loss: &x {box: *x}", ":5: not valid YAML: an alias is inside its own anchor"),
        ("---\nname: x", ":5: not valid YAML: but found another document"),
        ("name: 2024-13-99", ": not valid YAML: month must be in 1..12"),
        ("name: a\0", ": not valid YAML: unacceptable character #x0000"),
    ],
)
def test_invalid_yaml_names_the_line(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, BASE + text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}{expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "more"),
    [("&a0 [x, x]", "&a{0} [{1}]"), ("&a0 {x: 1}", "&a{0} {{<<: [{1}]}}"), (f"&a0 {'x' * 300}", "&a{0} [{1}]")],
)
def test_aliases_that_repeat_too_much_are_refused_at_once(first: str, more: str) -> None:
    lines = [f"a0: {first}", *(f"a{i}: {more.format(i, ', '.join([f'*a{i - 1}'] * 9))}" for i in range(1, 12))]
    with pytest.raises(UserError, match=r"^t:\d+: not valid YAML: its aliases repeat more than 1000000 characters; write"):
        parse_yaml("\n".join(lines), "t")
    assert parse_yaml("\n".join(lines[:4]), "t")["a1"]


def test_brackets_without_end_are_one_line() -> None:
    with pytest.raises(UserError, match=r"^t: not valid YAML: its brackets are nested too deeply$"):
        parse_yaml("[" * 5000 + "]" * 5000, "t")


@pytest.mark.parametrize("text", ['1: a\n"1": b', "yes: a\n'yes': b", "a: 1\n'a': 2", "x: {<<: {}, <<: {}}"])
def test_one_key_in_two_forms_is_one_key(text: str) -> None:
    with pytest.raises(UserError, match="is listed twice"):
        parse_yaml(text, "t")


@pytest.mark.parametrize(
    "name",
    ["..", ".", "a/b", "../x", "a\\b", "a.", "a ", " a", "a\tb", "a\nb", "\x1b[31m", "a\u200b", "x" * 201, "é" * 101, ""],
)
def test_names_are_plain_file_names(name: str) -> None:
    data = parse_yaml(BASE, "t")
    for key in ("name", "data.train.0.name"):
        with pytest.raises(UserError) as caught:
            resolve(data, [f"{key}={dump_inline(name)}"])
        assert f"{key}: " in str(caught.value)
        assert "must be a plain file name: 1 to 200 bytes" in str(caught.value)


@pytest.mark.parametrize("name", ["con", "a.b", ".x", "-x", "x" * 200, "日本", "a=b"])
def test_odd_names_that_are_plain_file_names(name: str) -> None:
    assert resolve(parse_yaml(BASE, "t"), [f"name={dump_inline(name)}"]).folder.name == name


def test_what_an_error_proposes_for_a_number_works_in_a_shell(tmp_path: Path) -> None:
    proposed = error(tmp_path, BASE, "name=3").rpartition("in a shell ")[2]
    (override,) = shlex.split(proposed)
    assert resolve(parse_yaml(BASE, "t"), [override]).name == "3"


@pytest.mark.parametrize("value", ["a\0b", "a\udcffb"])
def test_characters_that_no_file_can_hold(value: str) -> None:
    data = parse_yaml(BASE, "t") | {"output": value}
    with pytest.raises(UserError, match=r"output: .* holds a character that no file name and no text file can hold"):
        resolve(data)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, word in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=word):
            load_config(path)
    binary = tmp_path / "x.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="not a text file"):
        load_config(binary)


def test_yaml_reads_what_people_write() -> None:
    text = "a: 1e-3\nb: 1.e2\nc: 24:00:00\nd: 007\ne: -2\nf: +.5\ng: 0\nh: 1.5e+3\ni: 0x1F\nj: 1_000\nk: .inf\nl: 1e3x"
    expected = (1e-3, 100.0, "24:00:00", "007", -2, 0.5, 0, 1500.0, "0x1F", "1_000", float("inf"), "1e3x")
    read = parse_yaml(text, "t")
    assert tuple(read.values()) == expected
    assert [type(v) for v in read.values()] == [type(v) for v in expected]
    assert parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 2}", "t")["y"] == {"a": 1, "b": 2}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abc_. :1", max_size=8), inner),
        max_leaves=8,
    )
)
def test_dumped_values_are_read_back_equal(value: object) -> None:
    assert parse_yaml(dump_yaml(value), "t") == value
    assert parse_yaml(dump_inline(value), "t") == value
    assert "\n" not in dump_inline(value)


def test_a_line_end_stays_in_one_line() -> None:
    value = {"k\nk": "a\nb", "x" * 200: ["\n"]}
    assert "\n" not in dump_inline(value)
    assert parse_yaml(dump_inline(value), "t") == parse_yaml(dump_yaml(value), "t") == value


@pytest.mark.parametrize("text", ["1e-3", "24:00:00", "007", "no", "null", "2024-01-01", "0x1F", "1_000", "~", "- a", "1."])
def test_dumped_text_stays_text_for_any_yaml_reader(text: str) -> None:
    import yaml

    assert parse_yaml(dump_yaml({"k": text}), "t") == {"k": text}
    assert yaml.safe_load(dump_yaml({"k": text})) == {"k": text}


def test_overrides_are_applied_in_order_and_typed(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, BASE),
        [
            "train.epochs=5",
            "train.epochs=7",
            "optimizer.lr=1e-3",
            "data.train.0.share=2",
            "data.train.0.rename={Car: a}",
            "model.strides=[4, 8, 16]",
            "train.clip_norm=null",
            "resume=auto",
            "name=a=b",
        ],
    )
    assert (config.train.epochs, config.optimizer.lr, config.data.train[0].share) == (7.0, 1e-3, 2.0)
    assert config.data.train[0].rename == {"Car": "a"}
    assert isinstance(config.model, YoloConfig)
    assert config.model.strides == (4, 8, 16)
    assert (config.train.clip_norm, config.name) == (None, "a=b")
    assert config.resume is not None
    assert (config.resume.source, config.resume.allow) == ("auto", ())


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs", "write key=value, such as train.epochs=10"),
        ("=3", "write key=value"),
        ("train..epochs=3", "write key=value"),
        ("data.train.1.share=3", "data.train is a list of 1; use a number from 0 to 0"),
        ("data.train.-1.share=3", "data.train is a list of 1"),
        ("data.train.²=3", "data.train is a list of 1"),
        ("data.train.x.share=3", "data.train is a list of 1"),
        ("classes.0.x=3", "classes.0 is the value 'a', it has no key 'x'"),
        ("train.epochs=[", "not valid YAML"),
    ],
)
def test_overrides_that_cannot_be(tmp_path: Path, override: str, expected: str) -> None:
    message = error(tmp_path, BASE, override)
    assert message.startswith(f"override {override!r}:")
    assert expected in message


def test_an_index_into_an_empty_list(tmp_path: Path) -> None:
    assert "give it whole, data.train=[…]" in error(tmp_path, BASE, "data.train=[]", "data.train.0.share=3")


def test_variables_of_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, BASE.replace("root: r", 'root: "${DATA:-../data}/${SET}"'))
    config = load_config(path, environ={"SET": "bccd"})
    assert config.data.train[0].root == "../data/bccd"
    assert load_config(path, environ={"SET": "s", "DATA": "/d"}).data.val[0].root == "/d/s"
    with pytest.raises(UserError, match=r"data\.train\.0\.root: .* needs the variable SET; set it or write"):
        load_config(path, environ={})


@pytest.mark.parametrize("text", ["${A:-${HOME}/runs}", "${oc.env:HOME}", "${HOME-x}", "a/${", "$HOME/runs", "$HOME"])
def test_a_variable_that_is_not_understood_is_refused(tmp_path: Path, text: str) -> None:
    assert f"output: {text!r}: write a variable as ${{VAR}} or" in error(tmp_path, BASE, f"output={text}")
    assert resolve(parse_yaml(BASE, "") | {"output": text}, stored=True, environ={"HOME": "h"}).output  # that of an old run


def test_what_a_shell_reads_again_stays_as_it_is(tmp_path: Path) -> None:
    lines = ["export A=$HOME ~/x", "echo ${A%.txt}"]
    config = load_config(write(tmp_path, BASE), [f"slurm.setup={lines}", "output=~/runs"], environ={"HOME": "/h"})
    assert (list(config.slurm.setup), config.output) == (lines, "/h/runs")


def test_resolve_names_its_source() -> None:
    with pytest.raises(UserError, match=r"^there: classes: missing"):
        resolve({}, source="there")
    assert isinstance(resolve(parse_yaml(BASE, "t")), RunConfig)


@pytest.mark.parametrize(
    "overrides",
    [["resume=auto", "resume.allow=[seed]"], ["resume.allow=[seed]", "resume=auto"], ["resume=x", "resume={allow: [seed]}"]],
)
def test_resume_and_what_it_allows_stand_beside_each_other(overrides: list[str]) -> None:
    config = resolve(parse_yaml(BASE, ""), overrides)
    assert config.resume is not None
    assert (config.resume.source, config.resume.allow) == ("auto", ("seed",))
    assert resolve(parse_yaml(BASE, ""), ["resume.allow=[seed]", "resume=null"]).resume is None


def test_words_that_yaml_takes_for_something_else_stay_names(tmp_path: Path) -> None:
    text = BASE.replace("classes: [", "classes: [yes, no, on, 2001-1-1, 007, y, ")
    rename = "data.train.0.rename={no: yes, true: on, 1: y, ~: on, 2001-1-1: y}"
    config = load_config(write(tmp_path, text), [rename, "data.train.0.drop=[off, 0x1F, n]"])
    assert config.classes[:6] == ("yes", "no", "on", "2001-1-1", "007", "y")
    assert config.data.train[0].rename == {"no": "yes", "true": "on", "1": "y", "~": "on", "2001-1-1": "y"}
    assert config.data.train[0].drop == ("off", "0x1F", "n")
    for value in ("true", "1", "1.50", "~"):
        assert "must be text" in error(tmp_path, BASE, f"data.train.0.names=[a, {value}]")


def test_betas_are_momentum_and_beta2(tmp_path: Path) -> None:
    def betas(text: str, *overrides: str) -> tuple[float, float]:
        optimizer = load_config(write(tmp_path, BASE + text), overrides).optimizer
        return optimizer.momentum, optimizer.beta2

    assert betas("optimizer: {betas: [0.8, 0.99]}\n") == betas("", "optimizer.betas=[0.8, 0.99]") == (0.8, 0.99)
    assert betas("optimizer: {momentum: 0.7}\n", "optimizer.betas=[0.8, 0.99]") == (0.8, 0.99)
    assert betas("optimizer: {betas: [0.8, 0.99]}\n", "optimizer.momentum=0.7") == (0.7, 0.99)
    with pytest.raises(UserError, match=r"optimizer\.betas: sets optimizer\.beta2, which is also given; remove one of them"):
        betas("optimizer: {betas: [0.8, 0.99], beta2: 0.9}\n")
    for value in ("0.8", "[0.8]", "[0.8, 0.9, 0.99]"):
        said = "must be a list of 2, the values of optimizer.momentum and optimizer.beta2, not"
        assert said in error(tmp_path, BASE, f"optimizer.betas={value}")
    assert "optimizer.beta2: 1.5: must be a number < 1" in error(tmp_path, BASE, "optimizer.betas=[0.8, 1.5]")


@pytest.mark.parametrize(("word", "value"), [("yes", True), ("Off", False), ("no", False), ("ON", True), ("true", True)])
def test_a_switch_takes_the_words_of_yaml(tmp_path: Path, word: str, value: bool) -> None:
    config = load_config(write(tmp_path, BASE), [f"monitor.tensorboard={word}", f"ema.enabled={word}"])
    assert (config.monitor.trackers, config.ema.enabled) == (("tensorboard",) if value else (), value)
    for key in ("monitor.tensorboard", "ema.enabled"):
        assert "must be true or false" in error(tmp_path, BASE, f"{key}=maybe")


def test_the_older_switch_of_tensorboard_puts_it_among_the_trackers_or_takes_it_out(tmp_path: Path) -> None:
    def trackers(*overrides: str) -> tuple[str, ...]:
        return load_config(write(tmp_path, BASE), overrides).monitor.trackers

    assert trackers() == trackers("monitor.tensorboard=true") == ("tensorboard",)
    assert trackers("monitor.trackers=[wandb]", "monitor.tensorboard=true") == ("wandb", "tensorboard")
    assert trackers("monitor.trackers=[wandb, tensorboard, mlflow]", "monitor.tensorboard=false") == ("wandb", "mlflow")
    assert "tensorboard is listed twice" in error(tmp_path, BASE, "monitor.trackers=[tensorboard, tensorboard]")


def test_every_switch_of_the_config_takes_them() -> None:
    sections = all_sections(Section)
    switches = [f for s in sections for f in s.model_fields.values() if f.annotation is bool]
    assert len(switches) > 10
    assert all(any(isinstance(m, BeforeValidator) for m in f.metadata) for f in switches)


def all_sections(section: type[Section]) -> list[type[Section]]:
    return [section, *(s for sub in section.__subclasses__() for s in all_sections(sub))]
