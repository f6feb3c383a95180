"""Convolution against torch's own and plain loops."""

import math

import pytest
import torch
from plain_math import at, noisy

from tokbench import Downsampler, Geometry, Tokens, create
from tokbench.errors import UserError

DIM = 4


def made(kernel: int = 3, seed: int | None = 0) -> Downsampler:
    method = create("convolution", kernel=kernel)
    method.setup(Geometry(DIM, 2, (1, 2), (4, 6), (6, 2)))
    if seed is not None:
        torch.manual_seed(seed)
        for parameter in method.parameters():
            torch.nn.init.normal_(parameter)
    return method.eval()


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stage", [0, 1])
def test_half_the_grid_equals_a_convolution_of_stride_two(kernel: int, stage: int):
    method = made(kernel)
    tokens = Tokens.from_sequence(noisy(2, 1 + 48, DIM, seed=1), (6, 8))
    after = method(tokens, 12, at(stage))
    assert after.layout == (3, 4)
    linear = method.kernels[stage]
    weight = linear.weight.view(DIM, kernel, kernel, DIM).permute(0, 3, 1, 2)
    before, behind = (kernel - 1) // 2, kernel // 2
    image = tokens.patches.mT.view(2, DIM, 6, 8)
    image = torch.nn.functional.pad(image, (before, behind, before, behind), mode="replicate")
    wanted = torch.nn.functional.conv2d(image, weight, linear.bias, stride=2)
    assert torch.allclose(after.patches, wanted[:, :, :3, :4].flatten(2).mT, atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 5), (5, 3), (1, 7), (7, 7)])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_any_coarser_grid_reads_around_the_centres_of_its_cells(grid: tuple[int, int], kernel: int):
    rows, columns = grid
    method = made(kernel, seed=2)
    weight, bias = method.kernels[0].weight.view(DIM, kernel, kernel, DIM).tolist(), method.kernels[0].bias.tolist()
    tokens = Tokens.from_sequence(noisy(1, 1 + rows * columns, DIM, seed=3), grid)
    x = tokens.patches[0].tolist()
    offsets = [u - (kernel - 1) // 2 for u in range(kernel)]
    for keep in range(1, rows * columns):
        after = method(tokens, keep, at(0))
        h, w = after.layout
        assert after.n_patches == h * w == method.count(keep, rows * columns, 1, grid)
        assert after.layout == method.layout_after(keep, grid)
        assert h * w == max(a * b for a in range(1, rows + 1) for b in range(1, columns + 1) if a * b <= keep)
        for i in range(h):
            for j in range(w):
                r, c = math.floor((i + 0.5) * rows / h - 0.5 + 1e-9), math.floor((j + 0.5) * columns / w - 0.5 + 1e-9)
                for d in range(DIM):
                    wanted = bias[d]
                    for u, down in enumerate(offsets):
                        for v, across in enumerate(offsets):
                            place = min(max(r + down, 0), rows - 1) * columns + min(max(c + across, 0), columns - 1)
                            wanted += sum(weight[d][u][v][e] * x[place][e] for e in range(DIM))
                    assert after.patches[0, i * w + j, d].item() == pytest.approx(wanted, abs=1e-4)
        owner = [(p // columns * h // rows) * w + p % columns * w // columns for p in range(rows * columns)]
        assert after.owner[0].tolist() == owner
        assert after.size[0].tolist() == [owner.count(k) for k in range(h * w)]


def test_the_initial_kernel_is_the_mean_of_a_window():
    tokens = Tokens.from_sequence(noisy(2, 1 + 64, DIM, seed=5), (8, 8))
    after = made(2, seed=None)(tokens, 16, at(0))
    image = tokens.patches.mT.view(2, DIM, 8, 8)
    assert torch.allclose(after.patches, torch.nn.functional.avg_pool2d(image, 2).flatten(2).mT, atol=1e-6)


def test_every_weight_gets_a_gradient():
    method = made().train()
    tokens = Tokens.from_sequence(noisy(2, 1 + 24, DIM, seed=1), (4, 6))
    first = method(tokens, 6, at(0))
    second = method(first, 2, at(1))
    (first.patches.square().sum() + second.patches.square().sum()).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad != 0).all(), name


def test_weights_can_be_saved_and_loaded():
    method, other = made(seed=1), made(seed=2)
    tokens = Tokens.from_sequence(noisy(2, 1 + 24, DIM, seed=3), (4, 6))
    assert not torch.allclose(method(tokens, 6, at(0)).x, other(tokens, 6, at(0)).x)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method(tokens, 6, at(0)).x, other(tokens, 6, at(0)).x)


def test_an_image_gives_the_same_result_in_any_batch():
    method, x = made(), noisy(5, 1 + 24, DIM, seed=6)
    together = method(Tokens.from_sequence(x, (4, 6)), 10, at(0))
    for b in range(5):
        alone = method(Tokens.from_sequence(x[b : b + 1], (4, 6)), 10, at(0))
        assert torch.allclose(alone.x[0], together.x[b], atol=1e-5)


def test_tokens_without_a_grid_and_empty_kernels_are_rejected():
    tokens = Tokens.from_sequence(noisy(1, 10, DIM, seed=1), (3, 3)).select(torch.tensor([[0, 4, 8, 2]]))
    with pytest.raises(ValueError, match="grid"):
        made()(tokens, 2, at(0))
    with pytest.raises(UserError, match="kernel"):
        create("convolution", kernel=0)
