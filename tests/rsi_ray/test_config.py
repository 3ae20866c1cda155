"""A sweep's file: spaces, tasks and own classes by kind, and what is wrong in it said in one line."""

import json
import re
import sys
from pathlib import Path

import pytest

from rsi_ray import Sweep
from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.config import load_config, load_example, parse_config
from rsi_ray.errors import RunError, SweepError
from rsi_ray.example_files import example_file, examples
from rsi_ray.own import own_class
from rsi_ray.placement import Resources
from rsi_ray.runs import run_folder
from rsi_ray.tasks import breast_cancer_task
from rsi_ray.wiring import TASK_SECTIONS, load_task_of, space_of, sweep_of, with_paths_from
from safety import Document, DocumentError
from safety.document import parse_yaml
from search_spaces import ConvSpace, MLPSpace
from tests.safety.test_names import REFUSED

LIMITS = "limits: {bounds: {max_params: 1e6, max_flops: 1e9, max_memory: 1e9}}\n"
OWN = """
from dataclasses import dataclass

from rsi_ray.tasks import breast_cancer_task
from search_spaces import MLPSpace


class MySpace(MLPSpace):
    pass


class Bare:
    def __init__(self, most):
        self.most = most

    def suggest(self, trial):
        return trial.suggest_int("width", 1, self.most)

    samples = build = suggest


class Half:
    def suggest(self, trial):
        return trial.suggest_int("width", 1, 9)


def my_task():
    return breast_cancer_task()
"""


def parse(text, folder=Path("/data")):
    return parse_config(parse_yaml(text + LIMITS, source="f.yaml"), folder=folder)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "mine_for_tests.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine_for_tests", None)


@pytest.mark.parametrize("name", examples())
def test_every_example_is_a_file_that_could_be_ones_own(name, tmp_path):
    (tmp_path / "own.yaml").write_text(example_file(name).read_text())
    assert load_config(tmp_path / "own.yaml") == load_example(name)


@pytest.mark.parametrize("name", examples())
def test_a_config_that_a_run_wrote_down_is_the_same_when_it_is_read_again(name):
    config = load_example(name)
    written = Document(source="run.json", data=config.model_dump(mode="json"))
    assert parse_config(written, folder=Path("/elsewhere")) == config


def test_an_example_that_is_unknown_is_told_with_those_that_are_known():
    with pytest.raises(
        DocumentError, match="example 'cifar': expected one of breast_cancer, built_in, digits"
    ):
        load_example("cifar")


def test_a_space_gets_the_heads_of_the_task_and_the_batch_size_of_the_training():
    config = parse("space: {kind: conv, widths: [16]}\ntask: {kind: digits}\ntraining: {batch_size: 8}\n")
    space = space_of(config)
    assert isinstance(space, ConvSpace)
    assert (space.widths, space.batch_size, space.heads[0].name) == ((16,), 8, "digits")


def test_whole_numbers_may_be_written_with_an_exponent():
    assert space_of(parse("space: {kind: mlp, widths: [1e2]}\ntask: {kind: breast_cancer}\n")).widths == (
        100,
    )


def test_hyperparameters_of_the_file_are_searched():
    sweep = sweep_of(parse("hyperparameters: {learning_rate: [1e-4, 1e-2], schedule: [cosine, linear]}\n"))
    assert sweep.hyperparameters.learning_rate == (1e-4, 1e-2)
    assert sweep.hyperparameters.schedule == ("cosine", "linear")


def test_a_trial_may_ask_for_the_share_of_a_gpu_that_it_needs():
    sweep = sweep_of(parse("resources: {gpu: auto, gpu_memory: 80e9}\n"))
    assert (
        sweep.checked_plan().resources
        == Resources(gpus="auto", gpu_memory=80 * 10**9)
        == sweep.job().resources
    )
    assert sweep_of(parse("resources: {gpu: 0.5}\n")).gpus == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu: all", "resources.gpu: expected a number or 'auto', found 'all'"),
        ("gpu: 2", "resources.gpu: expected a number up to 1 or 'auto' .*by several workers.*, found 2"),
        ("gpu: 1.5", "resources.gpu: expected a number up to 1 or 'auto' .*by several workers.*, found 1.5"),
        ("gpu: -1", "resources.gpu: expected a number from 0.0 or 'auto', found -1"),
        ("gpu_memory: 0", "resources.gpu_memory: expected a number from 1, found 0"),
        ("gpu_memory: 8 GB", "resources.gpu_memory: expected a whole number from 0 to 2\\^62, found '8 GB'"),
    ],
)
def test_what_a_trial_can_not_ask_for_is_told_in_one_line(text, message):
    with pytest.raises(DocumentError, match=f"f.yaml:1: {message}$"):
        parse(f"resources: {{{text}}}\n")


@pytest.mark.parametrize("changes", [{"gpus": "all"}, {"gpus": -1}, {"gpus": 2}, {"gpu_memory": 0.5}])
def test_the_same_in_python(changes):
    with pytest.raises(SweepError, match=f"{next(iter(changes))}: .*expected"):
        Sweep(
            MLPSpace(heads=breast_cancer_task().heads, batch_size=8), breast_cancer_task, {}, **changes
        ).plan()


def test_a_class_of_ones_own_gets_what_its_signature_asks_for(own_module):
    config = parse(
        "space: {kind: 'mine_for_tests:MySpace', options: {}}\ntask: {kind: 'mine_for_tests:my_task'}\n"
    )
    space = space_of(config)
    assert (type(space).__name__, space.batch_size) == ("MySpace", 32)
    assert isinstance(space, MLPSpace)
    assert load_task_of(config)().heads[0].name == "breast_cancer"
    bare = parse("space: {kind: 'mine_for_tests:Bare', options: {most: 9}}\ntask: {kind: breast_cancer}\n")
    assert space_of(bare).most == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: {kind: 'mine_for_tests:my_task', options: {bogus: 1}}\n", r"task\..*bogus"),
        (
            "space: {kind: 'mine_for_tests:Half'}\ntask: {kind: breast_cancer}\n",
            r"space\.Half: no samples, build",
        ),
        ("sampler: optuna.samplers:GridSampler\n", "sampler: .*can't be made: TypeError"),
        ("space: {kind: 'broken_for_tests:It'}\n", "can't be imported: SyntaxError"),
        ("space: {kind: table, path: nope.parquet}\n", r"space\..*nope.parquet"),
    ],
)
def test_a_class_of_ones_own_that_does_not_fit_is_told_in_one_line(own_module, tmp_path, text, message):
    (tmp_path / "broken_for_tests.py").write_text("def\n")
    with pytest.raises(DocumentError, match=message) as told:
        parse(text, folder=tmp_path)
    assert "\n" not in str(told.value)


def test_a_path_begins_at_the_folder_of_its_file(tmp_path):
    (tmp_path / "poems").mkdir()
    table = TASK_SECTIONS["table"](path="shop.csv", target="plan")
    assert with_paths_from(table, Path("/data")).path == "/data/shop.csv"
    texts = TASK_SECTIONS["text_files"](paths=["a.txt", "/b.txt"])
    assert with_paths_from(texts, Path("/data")).paths == ["/data/a.txt", "/b.txt"]
    hub = TASK_SECTIONS["hugging_face"](dataset="name/of", text="poem")
    assert with_paths_from(hub, tmp_path).dataset == "name/of"
    near = TASK_SECTIONS["hugging_face"](dataset="poems", text="poem")
    assert with_paths_from(near, tmp_path).dataset == str(tmp_path / "poems")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "space: {kind: gnn}\n",
            r"f.yaml:1: space.kind: expected one of transformer, conv, mlp, table, or module:Class",
        ),
        ("space: 3\n", "f.yaml:1: space: expected a mapping"),
        ("space:\n  kind: conv\n  width: 3\n", "f.yaml:3: space.width: unknown key"),
        ("space: {kind: conv}\n", "kind: conv takes a task with a ImageHead, the task built_in gives a Head"),
        ("space: {kind: 'nowhere:It'}\n", "'nowhere:It', the module can't be imported"),
        ("task: {kind: table, path: none.csv, target: y}\n", r"f.yaml:1: task\..*none.csv"),
        ("task: {kind: digits, holdout_size: -1}\n", "f.yaml:1: task.holdout_size"),
        ("sampler: annealing\n", "f.yaml:1: sampler: .*annealing"),
        ("sampler: 'json:dumps'\n", "f.yaml:1: sampler: .*json:dumps"),
        ("objectives: [params]\n", "f.yaml:1: objectives: expected score as the first one"),
        ("scheduler: {kind: pbt}\n", "f.yaml:1: scheduler.*search at least one"),
        ("hyperparameters: {learning_rate: [1, 0.1]}\n", "f.yaml:1: hyperparameters.learning_rate"),
        ("enqueue: [{width: 7}]\n", r"f.yaml:1: enqueue\[0\].width: expected one of"),
    ],
)
def test_what_does_not_fit_is_told_with_its_line_and_field(text, message):
    with pytest.raises(DocumentError, match=message) as told:
        parse(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["json", ":dumps", "json:nothing_of_that_name"])
def test_a_name_that_leads_to_no_class_is_refused(name):
    with pytest.raises(ValueError, match=r"expected module:Class|has no nothing_of_that_name"):
        own_class(name)


@pytest.mark.parametrize("key", ["12", "G" * 64, 12])
def test_a_governors_key_that_is_none_is_told_with_its_line(tmp_path, key):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"limits: limits.yaml\ngovernor_key: {key}\n")
    (tmp_path / "limits.yaml").write_text("bounds: {max_params: 1, max_flops: 1, max_memory: 1}\n")
    with pytest.raises(
        DocumentError, match=r"sweep\.yaml:2: governor_key: expected the 64 hexadecimal digits"
    ):
        load_config(path)


def test_folders_of_checkpoints_begin_at_the_folder_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a plan makes a folder for its results
    path = tmp_path / "sweep.yaml"
    path.write_text("limits: limits.yaml\ncheckpoints: [near, /mnt/far]\n")
    (tmp_path / "limits.yaml").write_text("bounds: {max_params: 10e9, max_flops: 1e15, max_memory: 1e12}\n")
    config = load_config(path)
    assert config.checkpoints == [str(tmp_path / "near"), "/mnt/far"]
    assert sweep_of(config).plan().checkpoints == (tmp_path / "near", Path("/mnt/far"))


@pytest.mark.parametrize("key", ["name", "lineage"])
@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_a_name_that_is_not_plain_is_told_with_its_line_and_in_python(tmp_path, key, name):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"trials: 1\n{key}: {json.dumps(name)}\nlimits: limits.yaml\n")
    (tmp_path / "limits.yaml").write_text("bounds: {max_params: 10e9, max_flops: 1e15, max_memory: 1e12}\n")
    with pytest.raises(DocumentError, match=rf"sweep\.yaml:2: {key}: expected 1 to 63 letters|control char"):
        load_config(path)
    sweep = Sweep(
        MLPSpace(heads=breast_cancer_task().heads, batch_size=8), breast_cancer_task, {}, **{key: name}
    )
    with pytest.raises(SweepError, match=f"{key}: .*: expected 1 to 63 letters"):
        sweep.plan()


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_no_run_is_found_by_a_name_that_is_not_plain(tmp_path, name):
    with pytest.raises(RunError, match=r"no run\.json there"):
        run_folder(tmp_path, name)


@pytest.mark.parametrize("bad", ["-1", "0", "true", "1e300", str(2**63), '"12"'])
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("space: {{widths: [{}]}}\n", "space.widths"),
        ("space: {{depth: [1, {}]}}\n", "space.depth"),
        ("space: {{kind: conv, widths: [{}]}}\ntask: {{kind: digits}}\n", "space.widths"),
        ("space: {{kind: mlp, widths: [{}]}}\ntask: {{kind: breast_cancer}}\n", "space.widths"),
        ("training: {{batch_size: {}}}\n", "training.batch_size"),
        ("trials: {}\n", "trials"),
        ("limits: {{bounds: {{max_params: {}, max_flops: 1, max_memory: 1}}}}\n", "limits.bounds.max_params"),
    ],
)  # fmt: skip
def test_a_size_that_is_none_is_refused_with_its_field(text, field, bad):
    document = parse_yaml(text.format(bad) + ("" if "limits" in text else LIMITS), source="f.yaml")
    with pytest.raises(DocumentError, match=rf"f\.yaml:1: {field}") as told:
        parse_config(document, folder=Path("/data"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("bad", ["-1", "true", "1e300", str(2**63), '"12"'])
@pytest.mark.parametrize("budget", ["cluster", "sweep"])
def test_a_budget_that_is_none_is_refused_with_its_field(budget, bad):
    bounds = "{max_params: 1, max_flops: 1, max_memory: 1}"
    text = f"limits: {{bounds: {bounds}, {budget}: {{trials: {bad}}}}}\n"
    with pytest.raises(DocumentError, match=rf"f\.yaml:1: limits.{budget}.trials"):
        parse_config(parse_yaml(text, source="f.yaml"), folder=Path("/data"))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://KEY:HIDDEN@bucket/x", "f.yaml:1: artifacts: s3://bucket/x: there is a key in it"),
        ("nonsense", "f.yaml:1: artifacts: nonsense: expected a URI of s3://"),
    ],
)
def test_artifacts_that_no_store_can_be_opened_by_are_refused_without_their_keys(uri, expected):
    with pytest.raises(DocumentError, match=re.escape(expected)) as told:
        parse_config(parse_yaml(f"artifacts: {uri}\n{LIMITS}", source="f.yaml"), folder=Path("/data"))
    assert "HIDDEN" not in str(told.value)


def test_artifacts_are_the_sweeps_and_a_storage_that_is_none_is_refused():
    text = (
        f"artifacts: s3://bucket/x\nstorage: /runs\nspace: {{kind: conv}}\ntask: {{kind: digits}}\n{LIMITS}"
    )
    plan = sweep_of(parse_config(parse_yaml(text, source="f.yaml"), folder=Path("/data"))).checked_plan()
    assert plan.stored == ArtifactStore(uri="s3://bucket/x", below="sweep")
    wrong = parse_yaml(text.replace("/runs", "s3://bucket/x"), source="f.yaml")
    sweep = sweep_of(parse_config(wrong, folder=Path("/data")))
    with pytest.raises(SweepError, match="storage: s3://bucket/x, expected a folder"):
        sweep.checked_plan()
