"""The model card: what the hub reads of it, what people do, and that it invents nothing."""

import pytest

from mclr_fast.models import describe, save_model
from mclr_fast.models.storage.card import card, displaced, hub_name

yaml = pytest.importorskip("yaml", reason="huggingface_hub brings it")
NET = dict(img_resolution=8, img_channels=3, label_dim=4, model_channels=8, channel_mult=[1], num_blocks=1)
SHA = "0123456789abcdef" * 4
ROW = {"samples": 2000, "nfe": 23, "metrics": {"mnist16": {"fd": 0.0421, "recall": None, "is": 8.5}}}
FULL = describe(
    NET,
    made_by="mnist16",
    objective="mclr",
    settings="MCLR(dsm_weight=0.0)",
    licence="CC BY-NC-SA 4.0",
    base={"model": "hf:someone/digits@main", "sha256": SHA},
    data={"name": "mnist16", "images": 3000, "classes": 10, "contents": "5f1e"},
    training={"seed": 3, "lr": 0.01},
    images_seen=36000,
    sampler={"num_steps": 12},
    metrics=[
        {**ROW, "seeds": [0, 1999], "chose": True},
        {**ROW, "samples": 500, "seeds": [5000, 5499], "chose": False},
    ],
    versions={"mclr_fast": "0.1.0", "commit": "abc123"},
)


def front_of(text):
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_hub_finds_what_it_looks_for():
    front, _ = front_of(card(FULL))
    assert front["license"] == "cc-by-nc-sa-4.0" and front["library_name"] == "mclr_fast"
    assert front["base_model"] == "someone/digits" and front["datasets"] == ["ylecun/mnist"]
    assert front["pipeline_tag"] == "unconditional-image-generation"
    assert {"class-conditional", "edm2", "mclr"} <= set(front["tags"])
    first = front["model-index"][0]["results"][0]
    assert first["dataset"] == {"name": "mnist16", "type": "ylecun/mnist"}
    assert [(m["type"], m["value"]) for m in first["metrics"]] == [("fd", 0.0421), ("is", 8.5)]


def test_the_hubs_own_reader_takes_it(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(card(FULL)).data
    assert data.license == "cc-by-nc-sa-4.0" and data.base_model == "someone/digits"
    assert [(r.metric_type, r.metric_value) for r in data.eval_results][:2] == [("fd", 0.0421), ("is", 8.5)]


@pytest.mark.parametrize(
    "said",
    [
        f"hf:someone/digits@main, SHA-256 {SHA}", "mnist16, 3,000 images in 10 classes, contents 5f1e",
        "MCLR(dsm_weight=0.0)", "| Images seen | 36,000 |", "seed 3, lr 0.01", "num_steps 12",
        "commit abc123",
        "| mnist16 | fd | 0.0421 | 2,000 | 0 to 1,999 | chose this model |",
        "| mnist16 | is | 8.5 | 500 | 5,000 to 5,499 | chose nothing |",
        "non-commercial purposes only, with NVIDIA named",
    ],
)  # fmt: skip
def test_people_read_all_that_config_json_says(said):
    assert said in front_of(card(FULL))[1]


def test_what_is_not_known_is_said_to_be_so():
    front, body = front_of(card(describe(NET)))
    assert front["license"] == "unknown" and not front.keys() & {"base_model", "datasets", "model-index"}
    for term in ("Base", "Data", "Objective", "Images seen", "Training", "Made with"):
        assert f"| {term} | not known |" in body
    assert "## Metrics\n\nNot known." in body and "## Licence\n\nNot known:" in body


def test_another_licence_keeps_its_name():
    front, body = front_of(card(describe(NET, licence='My: own "licence"')))
    assert front["license"] == "other" and front["license_name"] == 'My: own "licence"' in body


def test_a_base_that_the_hub_has_is_linked():
    assert hub_name("var_d16") == "FoundationVision/var"
    assert hub_name("edm2-img64-s-ddo") == "nvidia/DirectDiscriminativeOptimization"
    assert hub_name("edm2-img64-s-1073741-0.075") is None and hub_name("runs/x") is None


def test_where_things_lie_on_this_machine_is_not_told():
    assert displaced("/home/me/runs/x/checkpoints/best") == "x/checkpoints/best"
    assert displaced("/data/secret/base") == "base" and displaced("mnist16-base") == "mnist16-base"
    config = FULL | {"base": {"model": "/home/me/base", "sha256": SHA}}
    assert "/home" not in card(config) and f"| base, SHA-256 {SHA}" in card(config)


def test_every_saved_model_has_its_card(tmp_path):
    save_model(tmp_path, {}, FULL)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card(FULL)


def test_classes_are_listed_where_they_have_names_or_not_all_were_trained():
    names = ["cat", "dog|wolf", "2", "fish"]
    assert ", 4 classes: 0 cat, 1 dog\\|wolf, 3 fish" in card(
        FULL | {"class_names": names, "trained_classes": [0, 1, 3]}
    )
    assert "4 classes: 0" not in card(FULL)
