from __future__ import annotations

import re
import stat
from datetime import datetime, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from client.site.home import Home
from client.site.policy_section import PolicyRules
from client.site.site_config import SiteConfig, load_site_config, write_site_config
from common.platform.errors import ConfigurationError


def written(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, more: str = "") -> SiteConfig:
    return load_site_config(written(folder, f"name: north\ndata: /images\n{more}"))


def fields(model: type[BaseModel]) -> list[str]:
    found: list[str] = []
    for name, field in model.model_fields.items():
        assert field.description, name
        found.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += fields(field.annotation)
    return found


LISTS = st.one_of(st.just("any"), st.lists(st.sampled_from(["age", "no", "1", "é: #"])))
CONFIGS = st.builds(
    lambda **given: SiteConfig.model_validate(given),
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True),
    data=st.sampled_from(["/images", "/a b/ü: #x", "/012"]),
    labels=st.sampled_from([None, "/labels/table.csv"]),
    device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1"]),
    memory_gib=st.one_of(st.none(), st.floats(0.5, 1e6)),
    threads=st.one_of(st.none(), st.integers(1, 512)),
    hours=st.sampled_from([None, "22:00-06:00", "08:30-17:00"]),
    metrics_port=st.one_of(st.none(), st.integers(1, 30000)),
    health_port=st.one_of(st.none(), st.integers(30001, 65535)),
    policy=st.builds(
        lambda **given: PolicyRules.model_validate(given),
        private_only=st.booleans(),
        approval=st.sampled_from(["manual", "automatic"]),
        largest_epsilon_per_run=st.floats(1e-6, 1e6),
        cohort_delta=st.floats(1e-12, 1e-3),
        targets=LISTS,
        columns=LISTS,
        networks=st.sampled_from(["any", ["table"], []]),
        coordinators=st.sampled_from(["any", ["ab" * 32]]),
    ),
)


@given(CONFIGS)
def test_what_is_written_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, config: SiteConfig
) -> None:
    path = tmp_path_factory.mktemp("site") / "site.yaml"
    write_site_config(path, config)
    assert load_site_config(path) == config


def test_every_key_stands_in_the_file_below_a_line_that_says_what_it_means(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    write_site_config(path, SiteConfig(name="north", data=Path("/images")))
    lines = path.read_text().splitlines()
    for name in fields(SiteConfig):
        (place,) = [n for n, line in enumerate(lines) if line.strip().startswith(f"{name}:")]
        assert lines[place - 1].strip().startswith("#"), name
    assert max(map(len, lines)) <= 100


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    write_site_config(path, SiteConfig(name="north", data=Path("/images")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("devize: cpu\n", r"site\.yaml: unknown key devize\. Did you mean device\?"),
        ("policy: {privat_only: true}\n", r"policy\.privat_only\. Did you mean private_only\?"),
        ("policy: {larg_epsilon_per_run: 2.0}\n", r"Did you mean largest_epsilon_per_run\?"),
        ("policy: {private_only: 1}\n", r"policy\.private_only is 1: .*boolean"),
        (
            "policy: {largest_epsilon_per_run: -1.0}\n",
            r"largest_epsilon_per_run is -1\.0: .*greater",
        ),
        ("policy: {largest_epsilon_per_run: .inf}\n", r"largest_epsilon_per_run is '\.inf'"),
        (
            "policy: {tasks: [diagnosys]}\n",
            r"policy\.tasks .*'diagnosys' is none of .*Did you mean ",
        ),
        (
            "policy: {tasks: diagnosis}\n",
            r"policy\.tasks is 'diagnosis': expected any, or .*\[diagn",
        ),
        ("policy: {networks: [resnet]}\n", r"'resnet' is none of .*Did you mean resnet"),
        ("policy: {columns: {a: 1}}\n", r"policy\.columns.*: expected any, or a list"),
        ("policy: {coordinators: [abc]}\n", r"'abc' is no fingerprint, expected the SHA-256"),
        ("policy: {approval: auto}\n", r"policy\.approval is 'auto': .*'manual' or 'automatic'"),
        ("device: gpu\n", r"device is 'gpu': expected auto, cpu, cuda, or one GPU such as cuda:1"),
        ("device: cuda:one\n", r"device is 'cuda:one': expected auto"),
        ("memory_gib: 0\n", r"memory_gib is 0: .*greater than 0"),
        ("threads: true\n", r"threads is True"),
        ("hours: 22:00\n", r"hours is '22:00': expected two times of day, such as 22:00-06:00"),
        ("hours: 25:00-06:00\n", r"hours is '25:00-06:00': expected two times"),
        ("hours: 06:00-06:00\n", r"hours is '06:00-06:00': begins when it ends"),
        ("metrics_port: 70000\n", r"metrics_port is 70000"),
        ("metrics_port: 9000\nhealth_port: 9000\n", r"metrics_port, .*are equal: \[9000, 9000\]"),
        (
            "labels: labels.csv\n",
            r"labels is 'labels\.csv': expected a whole path that begins with /",
        ),
        ("name: North\n", r"the key name is given twice"),
        ("hours: [\n", r"site\.yaml is not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_key_its_value_and_what_fits(
    tmp_path: Path, more: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path, more)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds NoneType, expected keys like name: and data:"),
        ("- a\n", "holds list"),
        ("name: north\n", "data is missing"),
        ("name: North Wing\ndata: /images\n", "name is 'North Wing'"),
        ("name: north\ndata: images\n", "data is 'images': expected a whole path"),
    ],
)
def test_a_file_that_holds_something_else_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_site_config(written(tmp_path, text))


def test_a_site_that_is_not_set_up_yet_is_told_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="wardround-site join INVITE --data FOLDER"):
        load_site_config(tmp_path / "site.yaml")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_site_config(path)


def test_labels_lie_beside_the_images_unless_they_are_named(tmp_path: Path) -> None:
    assert load(tmp_path).labels_csv == Path("/images/labels.csv")
    assert load(tmp_path, "labels: /tables/a.csv\n").labels_csv == Path("/tables/a.csv")


@given(st.times(), st.times(), st.times())
def test_hours_are_those_from_their_beginning_up_to_their_end(
    begin: time, end: time, now: time
) -> None:
    begin, end = (t.replace(second=0, microsecond=0) for t in (begin, end))
    if begin == end:
        return
    hours = f"{begin:%H:%M}-{end:%H:%M}"
    config = SiteConfig(name="north", data=Path("/images"), hours=hours)
    # In summer and in winter, at this machine's own time.
    moment = datetime.combine(datetime(2026, 7, 15), now)  # noqa: DTZ001
    turned = SiteConfig(name="n", data=Path("/images"), hours=f"{end:%H:%M}-{begin:%H:%M}")
    assert config.works_at(moment) is not turned.works_at(moment)
    assert config.works_at(datetime.combine(moment, begin))
    assert not config.works_at(datetime.combine(moment, end))


def test_a_site_without_hours_works_all_day(tmp_path: Path) -> None:
    assert load(tmp_path).works_at(datetime(2026, 7, 15, 3, 0))  # noqa: DTZ001


def test_a_home_is_the_given_folder_else_the_environments_else_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARDROUND_SITE", "/srv/site")
    assert Home.chosen(Path("here")).folder == tmp_path / "here"
    assert Home.chosen(None).folder == Path("/srv/site")
    monkeypatch.delenv("WARDROUND_SITE")
    monkeypatch.setenv("HOME", "/home/anna")
    assert Home.chosen(None).folder == Path("/home/anna/.wardround/site")


def test_everything_of_a_site_lies_in_its_home_under_a_name_of_its_own() -> None:
    home = Home(Path("/srv/site"))
    names = [n for n, v in vars(Home).items() if isinstance(v, property) and n != "own"]
    paths = {getattr(home, name) for name in names}
    assert home.own == home.folder  # of the first federation; others have a folder each below it
    assert len(paths) == len(names) > 20
    assert all(path.parent == home.folder for path in paths)
