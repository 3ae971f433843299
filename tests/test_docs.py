"""The documentation says what the code says: names, keys, reasons, tables, links and examples."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from recsys_spark import columns, errors
from recsys_spark.cli import PIPELINES, recsys_parser
from recsys_spark.commands import MAIN_JOB
from recsys_spark.config_file import load_config
from recsys_spark.schemas import TABLES

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guide"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = runpy.run_path(str(ROOT / "docs" / "config_reference.py"), run_name="config_reference")


def read(*path):
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def code_names(text):
    """Everything that a page sets in code style."""
    return set(re.findall(r"`([^`\n]+)`", text))


def without_code_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """The anchors that a Markdown viewer gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def public_values(names):
    return sorted(value for name, value in vars(names).items() if not name.startswith("_"))


def test_every_job_and_every_pipeline_is_in_the_operating_page():
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    pipelines = {path.stem for path in (ROOT / "recsys_spark" / "pipelines").glob("*.py")} - {"__init__"}
    assert jobs == {MAIN_JOB, *PIPELINES}
    assert jobs == {MAIN_JOB, *pipelines}
    table = {
        line.split("`")[1] for line in read("docs", "guide", "operating.md").splitlines() if line.startswith("| `")
    }
    assert jobs <= table


def test_every_exit_code_is_in_the_operating_page():
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {0, 130, *(error.exit_code for error in classes)}
    page = read("docs", "guide", "operating.md")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


@pytest.mark.parametrize("name", public_values(columns.Bucket) + public_values(columns.Reason))
def test_every_bucket_and_every_reason_is_in_the_tables_of_the_ingest_page(name):
    assert f"\n| `{name}` |" in read("docs", "guide", "ingest.md")


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_is_described_with_its_columns_and_key(name):
    page = read("docs", "guide", "tables.md")
    spec = TABLES[name]
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    _, _, key, partitions, _, _ = row.split("|")
    assert tuple(re.findall(r"`(\w+)`", key)) == spec.key
    assert tuple(re.findall(r"`(\w+)`", partitions)) == spec.partition_by
    assert f"\n## {name}\n" in page
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+?) \|", section, re.MULTILINE)
    if rows:  # the pages of a few tables refer to another one's
        expected = [(f.name, f.dataType.simpleString() + ("" if f.nullable else "!")) for f in spec.schema]
        assert rows == expected


def test_the_config_page_is_what_its_script_prints():
    hint = "run .venv/bin/python docs/config_reference.py > docs/guide/config.md"
    assert read("docs", "guide", "config.md") == REFERENCE["as_markdown"](), hint


def test_every_config_key_is_in_the_config_page_with_a_sentence():
    page = read("docs", "guide", "config.md")
    for key, field in REFERENCE["leaves"]():
        assert f"| `{key}` |" in page
        assert field.description, f"{key} has no docstring"


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(GUIDE.glob("*.md"))], ids=lambda page: page.name)
def test_config_keys_that_a_page_names_exist(page):
    known = {key for key, _ in REFERENCE["leaves"]()}
    # `spark.` begins Spark's own settings too
    sections = {key.split(".")[0] for key in known if "." in key} - {"spark"}
    for name in code_names(without_code_blocks(page.read_text(encoding="utf-8"))):
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name) and name.split(".")[0] in sections:
            key = re.sub(r"\.columns\.\w+\.", ".columns.NAME.", name)
            assert any(f"{other}.".startswith(f"{key}.") for other in known), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code_blocks(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_config_files_that_pages_name_exist(page):
    for name in re.findall(r"\bconf/[\w./-]+\.yaml\b", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"


def test_every_yaml_block_is_a_valid_config(tmp_path):
    blocks = {page: re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL) for page in PAGES}
    assert blocks[ROOT / "README.md"]
    for text in (block for found in blocks.values() for block in found):
        path = tmp_path / "block.yaml"
        path.write_text(text, encoding="utf-8")
        load_config(path)


def test_the_readmes_own_data_takes_five_lines(tmp_path):
    block = re.search(r"<!-- own-data -->\n```yaml\n(.*?)```", read("README.md"), re.DOTALL)[1]
    assert len(block.splitlines()) == 5
    path = tmp_path / "my.yaml"
    path.write_text(block, encoding="utf-8")
    events = load_config(path).sources.events
    assert events.path == "logs/shop/*.jsonl"
    assert events.columns["user_id"].column == "customer"


def test_every_set_option_on_the_pages_is_valid():
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("$alpha", "1")
        for quoted, plain in re.findall(r"--set (?:'([^'\n]+)'|([a-z][\w.]*=[^\s\"`]+))", text):
            if (quoted or plain) != "dotted.key=value":
                load_config(None, [quoted or plain])  # raises on an option that is none
                found += 1
    assert found > 5, f"the pattern finds {found} options only"


def test_every_recsys_command_on_the_pages_can_be_parsed():
    parser, found = recsys_parser(), 0
    for page in PAGES:
        blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            command = re.match(r"\s*(?:\.venv/bin/)?recsys (.*)", line)
            if command:
                parser.parse_args(shlex.split(command[1], comments=True))  # ends the process on one that is none
                found += 1
    assert found > 20, f"the pattern finds {found} commands only"


def test_make_targets_on_the_pages_exist_and_the_readme_names_all():
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        in_code = "\n".join([*code_names(text), *re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)])
        named = {
            word for words in re.findall(r"^make ((?:[a-z-]+ ?)+)", in_code, re.MULTILINE) for word in words.split()
        }
        assert named <= targets, page.name
    assert set(re.findall(r"^\| `make ([a-z-]+)` \|", read("README.md"), re.MULTILINE)) == targets


def test_the_files_of_the_guided_tour_exist():
    tour = read("README.md").split("## Read these five files first")[1].split("\n## ")[0]
    files = re.findall(r"^\d\. \[([\w./]+)\]\(\1\)", tour, re.MULTILINE)
    assert len(files) == 5
    assert all((ROOT / file).is_file() for file in files)


def test_every_decision_is_in_the_list_of_decisions():
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", read("docs", "adr", "README.md"))
    assert listed == [path.name for path in sorted((ROOT / "docs" / "adr").glob("0*.md"))]


def test_the_demo_output_stands_between_its_markers():
    text = read("README.md")
    shown = re.search(r"<!-- demo-output -->\n```\n(.*?)```\n<!-- /demo-output -->", text, re.DOTALL)
    assert shown
    assert "Every line accounted for" in shown[1]
    assert "simulated from real patterns" in text
