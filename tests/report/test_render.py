"""Tables, JSON, CSV, Markdown and LaTeX say the same numbers, and say when there is none."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, Group, RenderableType

from hwdkit.measure.types import ClassDivergence, ClassRow, ModelSummary, PerClassReport
from hwdkit.report import render
from hwdkit.report.per_class import (
    per_class_csv,
    per_class_json,
    per_class_latex,
    per_class_markdown,
    per_class_tables,
)
from hwdkit.report.render import latex_number, latex_text
from hwdkit.report.saved import report_from_dict
from hwdkit.report.summary import summary_table
from hwdkit.types import Role


def summary(name: str, role: Role, miou: float) -> ModelSummary:
    return ModelSummary(name, role, f"runs/{name}/best.safetensors", 13_610_000, 5.63, miou, 0.7, 0.9)


def class_row(name: str, share: float, scores: tuple[float, float, float], ratio: float | None) -> ClassRow:
    iou = dict(zip(("teacher", "baseline", "hwd"), scores, strict=True))
    td = None if ratio is None else 1e-6 * ratio
    ntd = None if ratio is None else 1e-6
    other = ClassDivergence(3e-6, 2e-6, 1.5, 1.75, 0.5, images=4)
    unknown = ClassDivergence()
    return ClassRow(
        name, (128, 64, 128), share, iou, td, ntd, ratio, 1.25,
        image_ratio=None if ratio is None else 2 * ratio, ratio_images=0 if ratio is None else 7,
        divergences={"baseline": unknown if ratio is None else other},
    )  # fmt: skip


@pytest.fixture
def report() -> PerClassReport:
    models = (
        summary("teacher", "teacher", 0.6),
        summary("baseline", "baseline", 0.5),
        summary("hwd", "student", 0.55),
    )
    rows = (
        class_row("road", 0.7, (0.98, 0.96, 0.97), 308.7),
        class_row("wall", 0.0, (math.nan, math.nan, math.nan), None),
        class_row("a|b, [red]c", 0.3, (0.5, 0.4, 0.35), 46.2),
    )
    return PerClassReport(
        "scenes",
        "val",
        500,
        4.0,
        "activation",
        "present",
        ("hwd", "teacher"),
        models,
        rows,
        notes=("A remark.",),
    )


def printed(table: RenderableType, width: int = 200) -> str:
    console = Console(width=width, record=True, file=StringIO(), color_system=None)
    console.print(table)
    return console.export_text()


def names_in_order(report: PerClassReport, order: str) -> list[str]:
    return [row.name for row in report.ordered(order)]  # type: ignore[arg-type]


def test_json_round_trip_keeps_every_number(report: PerClassReport) -> None:
    text = per_class_json(report)
    assert per_class_json(report_from_dict(json.loads(text))) == text
    assert json.loads(text)["schema_version"] == 1


def test_json_holds_null_where_a_class_is_absent(report: PerClassReport) -> None:
    document = json.loads(per_class_json(report), parse_constant=pytest.fail)
    assert document["rows"][1]["iou"]["hwd"] is None
    assert math.isnan(report_from_dict(document).rows[1].iou["hwd"])


def test_a_document_of_another_version_or_with_an_unknown_key_is_refused(report: PerClassReport) -> None:
    document = report.to_dict()
    with pytest.raises(ValueError, match="schema_version 2"):
        report_from_dict({**document, "schema_version": 2})
    with pytest.raises(ValueError, match="surprise"):
        report_from_dict({**document, "surprise": 1})


def test_csv_parses_back_at_full_precision(report: PerClassReport) -> None:
    lines = list(csv.DictReader(StringIO(per_class_csv(report))))
    assert [line["class"] for line in lines] == [row.name for row in report.rows]
    assert float(lines[0]["iou_hwd"]) == report.rows[0].iou["hwd"]
    assert float(lines[2]["delta_to_baseline"]) == report.delta(report.rows[2])
    assert lines[0]["colour"] == "#804080"
    assert lines[1]["iou_hwd"] == lines[1]["td_ntd_ratio"] == ""


def test_csv_holds_the_divergence_of_every_student_under_its_name(report: PerClassReport) -> None:
    lines = list(csv.DictReader(StringIO(per_class_csv(report))))
    columns = ("td", "ntd", "td_ntd_ratio", "td_ntd_image_ratio", "hwd_weight")
    assert [float(lines[0][f"{name}_baseline"]) for name in columns] == [3e-6, 2e-6, 1.5, 1.75, 0.5]
    assert [lines[0][f"{name}_hwd"] for name in columns] == [lines[0][name] for name in columns]
    assert (lines[0]["ratio_images_baseline"], lines[0]["ratio_images_hwd"]) == ("4", "7")
    assert (lines[1]["td_baseline"], lines[1]["ratio_images_baseline"]) == ("", "0")


@pytest.mark.parametrize("order", ["iou", "gap", "share", "td-ntd", "weight"])
def test_sorting_puts_the_unknown_last_and_the_largest_first(report: PerClassReport, order: str) -> None:
    weights = {"road": 2.0, "wall": None, "a|b, [red]c": 0.5}
    rows = tuple(replace(row, weight=weights[row.name]) for row in report.rows)
    names = names_in_order(replace(report, rows=rows), order)
    assert names[0] == ("a|b, [red]c" if order == "gap" else "road")
    assert names[-1] == "wall"  # nan, or the smallest share


@pytest.mark.parametrize("order", [None, "class"])
def test_class_order_is_that_of_the_report(report: PerClassReport, order: str) -> None:
    assert names_in_order(report, order) == ["road", "wall", "a|b, [red]c"]


def test_restricting_the_classes_changes_the_rows_and_not_the_means(report: PerClassReport) -> None:
    only = ("road",)
    whole, part = (
        printed(Group(*per_class_tables(report))),
        printed(Group(*per_class_tables(report, only=only))),
    )
    assert "wall" in whole
    assert "wall" not in part
    for last in ("mean of all 3", "177.4", "354.9", "55.00"):  # of road and a|b: 308.7 and 46.2
        assert last in part
    assert "mean of all" not in whole
    assert "177.4" in whole
    for text in (per_class_markdown(report, only=only), per_class_latex(report, only=only)):
        assert "road" in text
        assert "wall" not in text
        assert "177.4" in text
    assert len(per_class_csv(report, only).splitlines()) == 2


def test_every_student_has_its_own_columns_in_the_second_table(report: PerClassReport) -> None:
    text = printed(Group(*per_class_tables(report)))
    second = text[text.index("divergence from teacher") :]
    assert "baseline" in second
    assert "1.500" in second
    assert "308.7" in second
    assert "| baseline TD/NTD |" in per_class_markdown(report)
    rows = tuple(replace(row, divergences={}) for row in report.rows)
    for alone in (replace(report, rows=rows), replace(report, rows=())):
        assert "divergence from" not in printed(Group(*per_class_tables(alone)))
        assert per_class_latex(alone).count(r"\begin{table}") == 1


def test_caption_says_what_was_compared(report: PerClassReport) -> None:
    assert "squared difference of the activation maps at tau = 4" in per_class_markdown(report)
    kl = replace(report, divergence="kl", temperature=2.0)
    assert "KL of the activation maps at tau = 2" in per_class_markdown(kl)
    assert "squared difference of the logits" in per_class_markdown(replace(report, divergence_on="logits"))


def test_every_form_of_the_report_says_what_its_weights_are(report: PerClassReport) -> None:
    said = "HWD's at mu = 0, sigma = 1, beta = 0.1, no area correction"
    texts = (printed(Group(*per_class_tables(report))), per_class_markdown(report), per_class_latex(report))
    for text in texts:
        assert said in " ".join(text.split())


def test_table_shows_percent_signs_of_change_and_means(report: PerClassReport) -> None:
    text = printed(Group(*per_class_tables(report, "name")))
    for shown in ("97.00", "+1.00", "−5.00", "308.7", "a|b, [red]c", "55.00", "+5.00"):
        assert shown in text
    assert "nan" not in text


def test_a_narrow_table_leaves_columns_out_instead_of_cutting_numbers(report: PerClassReport) -> None:
    text = printed(Group(*per_class_tables(report)), width=80)
    assert "Too narrow for: TD" in " ".join(text.split())
    assert "…" not in text


def test_a_class_name_cannot_send_control_characters(report: PerClassReport) -> None:
    hostile = replace(report, rows=(replace(report.rows[0], name="ro\x1b[31mad\n"),))
    assert "\x1b" not in printed(Group(*per_class_tables(hostile)))
    assert "\x1b" not in per_class_markdown(hostile)


def test_markdown_rows_have_as_many_cells_as_the_head(report: PerClassReport) -> None:
    tables = per_class_markdown(report).split("###")[1:]
    assert len(tables) == 2
    for text in tables:
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert len(table) == 2 + len(report.rows) + 1
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_without_a_baseline_the_difference_is_unknown(report: PerClassReport) -> None:
    alone = replace(report, models=(report.models[0], report.models[2]))
    assert alone.baseline is None
    assert math.isnan(alone.delta(alone.rows[0]))
    assert "hwd" in printed(Group(*per_class_tables(alone)))


def test_summary_emphasises_the_best_student_and_not_the_teacher() -> None:
    rows = [
        {
            "model": "teacher",
            "role": "teacher",
            "params": 39_640_000,
            "gmacs": 41.2,
            "miou": 0.7,
            "seconds": 60.0,
        },
        {
            "model": "plain",
            "role": "baseline",
            "params": 13_610_000,
            "gmacs": None,
            "miou": 0.5,
            "seconds": 20,
        },
        {"model": "cwd", "role": "student", "params": 13_610_000, "gmacs": 5.63, "miou": 0.52, "seconds": 20},
        {"model": "hwd", "role": "student", "params": 13_610_000, "gmacs": 5.63, "miou": 0.55},
        {"model": "broken", "role": "student", "miou": math.nan},
    ]
    markdown = summary_table(rows).markdown()
    assert "| **hwd** | **13.61** | **5.63** | **55.00** | **+5.00** | – |" in markdown
    assert markdown.count("**hwd**") == 1
    assert "**teacher**" not in markdown
    assert "› hwd" in printed(summary_table(rows))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (308.71, "309"),
        (0.0, "0.00"),
        (1.5e-9, "1.50e-09"),
        (None, "–"),
        (math.inf, "–"),
        (9.999, "10.0"),
        (0.0012345, "0.00123"),
    ],
)
def test_numbers_keep_three_significant_digits(value: float | None, text: str) -> None:
    assert render.number(value) == text


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    assert render.points(-1e-7) == "0.00"


def columns_of(specification: str) -> int:
    """Columns of a tabular that has letters only."""
    assert set(specification) <= set("lcr")
    return len(specification)


def cells_of(line: str) -> int:
    """How many columns a line fills: unescaped ampersands, and what spans several."""
    spans = [int(count) for count in re.findall(r"\\multicolumn\{(\d+)\}", line)]
    return len(re.findall(r"(?<!\\)&", line)) + 1 + sum(span - 1 for span in spans)


def require_well_formed(text: str) -> None:
    """What TeX would stumble over: environments, braces, cells, maths, characters that are commands."""
    stack: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    bare = re.sub(r"\\[\\{}$&%#_]", "", re.sub(r"(?m)^%.*$", "", text))
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    outside = "".join(bare.split("$")[::2])
    assert not set(outside) & set('_^~#<>|"%')
    assert set(re.findall(r"\\([a-zA-Z]+)", bare)) <= COMMANDS
    for specification, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.S):
        lines = [line.strip() for line in body.strip().splitlines()]
        assert [lines[0], lines[-1]] == [r"\toprule", r"\bottomrule"]
        for line in lines:
            if line.startswith((r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule")):
                continue
            assert line.endswith(r"\\")
            assert not line.startswith(("[", "*"))  # options of the line's end before it
            assert cells_of(line.removesuffix(r"\\")) == columns_of(specification)


COMMANDS = {
    *("begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "cmidrule"),
    *("multicolumn", "times", "Delta", "tau", "textbackslash", "textasciitilde", "textasciicircum"),
    *("textless", "textgreater", "textbar"),
}


def test_latex_is_well_formed(report: PerClassReport) -> None:
    text = per_class_latex(report)
    require_well_formed(text)
    assert text.count(r"\begin{table}") == 2
    assert r"\multicolumn{3}{c}{hwd}" in text
    assert r"a\textbar{}b, {[}red{]}c & 30.00 & 50.00" in text
    assert r"$4.62 \times 10^{-5}$" in text


@pytest.mark.parametrize(
    "name",
    ["50% & $x_1$ #2", r"\input{/etc/passwd}", "{", "}}", "[0pt]", "* *", '~^<>|"', "a\n\\b\x1b", "ä é 車"],
)
def test_a_name_in_latex_is_text_and_no_command(report: PerClassReport, name: str) -> None:
    rows = (replace(report.rows[0], name=name),)
    models = (replace(report.models[0], name=name), *report.models[1:])
    hostile = replace(report, dataset=name, rows=rows, models=models, notes=(name,), pair=("hwd", name))
    require_well_formed(per_class_latex(hostile))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("–", "--"),
        ("1.50e-09", r"$1.50 \times 10^{-9}$"),
        ("3.00e+12", r"$3.00 \times 10^{12}$"),
        ("−5.00", "$-$5.00"),
        ("+0.10", "$+$0.10"),
        ("308.7", "308.7"),
    ],
)
def test_numbers_in_latex_have_real_signs_and_powers(text: str, written: str) -> None:
    assert latex_number(text) == written


def test_text_in_latex_keeps_other_letters() -> None:
    assert latex_text("traffic sign, Straße") == "traffic sign, Straße"
