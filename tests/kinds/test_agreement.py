"""Agreement with the plain model, against predictions computed one image at a time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

import tokbench
from tokbench.data.loading import batches
from tokbench.data.preprocessing import preprocessing_of
from tokbench.downsampler import DownsamplerError
from tokbench.embedded.images import image_set
from tokbench.measure.agreement import Prediction, compare, difference
from tokbench.measure.answers import classify, evaluate, predict
from tokbench.measure.image_streams import Loading, image_ids
from tokbench.measure.shared_blocks import SharedBlocks
from tokbench.stats.proportions import wilson
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import load_model
from tokbench.vit.variants import with_fewer_pixels

SMALL = "test_vit"
IMAGES = 60
COMMAND = [
    "compare", "imagenet", "--data", "photos", "--weights", "weights.safetensors", "--models", SMALL, "--at", "1",
    "--methods", "tome,random_selection", "--keep", "0.5", "--seeds", "0,1", "--baselines", "96", "--workers", "0",
    "--only", "agreement", "--batch-size", "8",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 pictures without labels, and weights that tell them apart."""
    noise = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(IMAGES):
        pixels = noise.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((180, 180)).save(tmp_path / "photos" / f"{number:03d}.png")
    torch.manual_seed(0)
    vit = timm.create_model(SMALL, pretrained=False)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.2)
    save_file(vit.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "photos"


def load(folder: Path) -> timm.models.VisionTransformer:
    vit = timm.create_model(SMALL, pretrained=False)
    vit.load_state_dict(load_file(folder / "weights.safetensors"))
    return vit.eval()


@torch.inference_mode()
def predictions(vit, model, photos: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits and pooled features of each image in float64, with timm's own preprocessing."""
    transform = create_transform(**resolve_data_config({}, model=vit))
    heads = []
    hook = vit.head.register_forward_hook(lambda _, inputs, output: heads.append((output, inputs[0])))
    for file in sorted(photos.iterdir()):
        model(transform(Image.open(file))[None])
    hook.remove()
    return [(logits[0].double().numpy(), features[0].double().numpy()) for logits, features in heads]


def expected(plain, other) -> tuple[int, float, float]:
    """How many images keep their top-1, and the means of KL divergence and cosine similarity."""
    same, divergences, cosines = 0, [], []
    for (p, f), (q, g) in zip(plain, other, strict=True):
        same += int(p.argmax() == q.argmax())
        p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (p, q))
        divergences.append(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))
        cosines.append(f @ g / np.sqrt((f @ f) * (g @ g)))
    return same, float(np.mean(divergences)), float(np.mean(cosines))


def test_agreement_needs_no_labels(run, photos, tmp_path):
    assert run(*COMMAND)[0] == 0
    table = pd.read_parquet(tmp_path / "results/imagenet/table.parquet").set_index(["method", "params"])
    vit = load(tmp_path)
    plain = predictions(vit, vit, photos)
    smaller = with_fewer_pixels(vit, 96).eval()
    reduced = tokbench.reduce(vit, "tome", keep=0.5, schedule="stages(at=1)")
    for key, other in {
        ("none", "img_size=96"): predictions(smaller, smaller, photos),
        ("tome", "proportional=true"): predictions(vit, reduced, photos),
    }.items():
        same, kl, cosine = expected(plain, other)
        row = table.loc[key]
        share = wilson(same, IMAGES)
        assert 0 < same < IMAGES
        assert row["agreement"] == 100 * share.estimate
        assert (row["agreement_lo"], row["agreement_hi"]) == (100 * share.lo, 100 * share.hi)
        assert (row["kl"], row["cosine"]) == pytest.approx((kl, cosine), rel=1e-4)
    assert table.loc[("none", "")][["agreement", "kl", "cosine"]].isna().all()
    assert len(table.loc["random_selection"]["kl"].unique()) == 2  # its seeds differ


def test_labelled_images_get_accuracy_and_agreement_from_one_pass(run, photos, tmp_path):
    assert run(*COMMAND, "--out", "alone")[0] == 0
    alone = pd.read_parquet(tmp_path / "alone/table.parquet")
    (tmp_path / "photos").rename(tmp_path / "n01440764")
    (tmp_path / "photos").mkdir()
    (tmp_path / "n01440764").rename(tmp_path / "photos/n01440764")
    assert run(*COMMAND, "--only", "accuracy", "--out", "both")[0] == 0
    assert pd.read_parquet(tmp_path / "both/table.parquet")["agreement"].isna().all()
    assert run(*COMMAND, "--only", "accuracy,agreement", "--out", "both")[0] == 0  # adds what is missing
    assert run(*COMMAND, "--only", "accuracy,agreement", "--out", "at_once")[0] == 0
    for name in ("both", "at_once"):
        table = pd.read_parquet(tmp_path / name / "table.parquet")
        assert table["top1"].notna().all()
        same_choice = table["method"] != "random_selection"  # what it draws depends on the images' names
        columns = ["agreement", "kl", "cosine"]
        pd.testing.assert_frame_equal(table.loc[same_choice, columns], alone.loc[same_choice, columns])


def test_accuracy_without_labels_says_what_can_be_measured(run, photos):
    code, _, err = run(*COMMAND, "--only", "accuracy")
    assert code == 2
    assert "cannot read a class from '000.png'" in err
    assert err.strip().endswith("--only macs,latency,agreement")


def test_models_without_a_head_are_compared_by_their_features():
    plain, other = (torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    differences = [difference(Prediction(plain, plain), Prediction(other, other), None)]
    found = compare(differences, [0, 2], 3, has_classes=False)
    cosine = sum(float(f @ g / (f.norm() * g.norm())) for f, g in zip(plain, other, strict=True))
    assert (found.outcomes, found.kl) == ("-?-", None)
    assert found.cosine == pytest.approx(cosine, rel=1e-6)


def test_a_size_that_is_one_models_own_may_be_anothers_baseline():
    own = load_model("digits_deit_32").vit
    small, large = with_fewer_pixels(own, 24).eval(), load_model("digits_deit").vit
    plain = {"reduced": DownsampledViT(small).eval(), "baseline": DownsampledViT(large).eval()}
    reduced = tokbench.reduce(small, "tome", keep=0.5)
    models = {"reduced": reduced, "baseline": DownsampledViT(with_fewer_pixels(large, 24)).eval()}
    found = {}

    def attempt(key, shard, evaluate):
        found[key] = evaluate()
        return True

    loading = Loading(batch_size=10, workers=0, memory=64, cache=None, cuda=False)
    list(classify(models, image_set().head(20), {range(20): list(models)}, loading, attempt, plain))
    assert {key: len(answers.comparison.outcomes) for key, answers in found.items()} == {"baseline": 20, "reduced": 20}


def test_a_plain_model_that_fails_costs_the_rows_that_are_compared_with_it():
    vit, broken = load_model("digits_deit_16").vit, load_model("digits_deit_16").vit
    with torch.no_grad():
        broken.head.bias.fill_(torch.nan)
    model = tokbench.reduce(vit, "tome", keep=0.5)
    shared = SharedBlocks(DownsampledViT(vit).eval(), image_ids(image_set().names), preprocessing_of(vit), 0)
    images = image_set().head(4)
    for batch, _ in batches(images, preprocessing_of(vit).pixels, batch_size=4, workers=0):
        shared.add(batch)
    predictions = predict(DownsampledViT(broken).eval(), shared, 0)
    with pytest.raises(DownsamplerError, match="the plain model's logits or features are not finite"):
        evaluate(model, shared, range(4), None, None, predictions)
    with pytest.raises(ValueError, match="it broke"):
        evaluate(model, shared, range(4), None, None, ValueError("it broke"))
