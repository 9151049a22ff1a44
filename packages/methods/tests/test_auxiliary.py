import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate, pixel_shuffle

from semiseg.methods import AuxiliaryBank, Dropout, FeatureNoise, Prediction, Vat


class Plain(nn.Module):
    """Decoder k of a bank, as layers."""

    def __init__(self, bank: AuxiliaryBank, k: int):
        super().__init__()
        layers: list[nn.Module] = []
        for i, weight in enumerate(bank.weights):
            layer = nn.Conv2d(weight.shape[2], weight.shape[1], 1, bias=i > 0).to(weight)
            layer.weight.data = weight.data[k][:, :, None, None]
            layers.append(layer)
            if i > 0:
                assert layer.bias is not None
                layer.bias.data = bank.biases[i - 1].data[k]
                last = i == len(bank.weights) - 1
                layers += [nn.ReLU()] if bank.last_relu or not last else []
                layers.append(nn.PixelShuffle(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, z):
        return self.layers(z)


@pytest.mark.parametrize(("classes", "count"), [(21, 16_296), (19, 14_288), (13, 8_840), (11, 7_216)])
def test_parameters_at_stride_8(classes, count):
    bank = AuxiliaryBank([Dropout()] * 2, 512, classes)
    assert sum(p.numel() for p in bank.parameters()) == 2 * count


def test_parameters_at_stride_16_and_linear():
    bank = AuxiliaryBank([Dropout()], 320, 11, stride=16)
    assert sum(p.numel() for p in bank.parameters()) == 320 * 11 + 16 * 11**2 + 16 * 11
    assert [tuple(p.shape) for p in AuxiliaryBank([Dropout()] * 4, 7, 3, decoder="linear").parameters()] == [
        (4, 3, 7),
        (4, 3),
    ]


@pytest.mark.parametrize("last_relu", [False, True])
@pytest.mark.parametrize("stride", [2, 8])
def test_every_decoder_equals_its_layers(generators, last_relu, stride):
    torch.manual_seed(0)
    bank = AuxiliaryBank([Dropout(), FeatureNoise(), Dropout()], 6, 3, stride=stride, last_relu=last_relu).double()
    for parameter in bank.parameters():
        nn.init.normal_(parameter)
    z = torch.randn(2, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    prediction = Prediction(torch.zeros(2, 3, 4 * stride, 5 * stride))
    outputs = list(bank(z, prediction, lambda name: generators(0, 1)))
    assert len(outputs) == len(bank) == 3
    gradients = []
    for k, output in enumerate(outputs):
        operator = bank.perturbations[k](z, prediction, generators(0, 1), lambda z: z)
        plain = Plain(bank, k)
        expected = plain(operator.apply(z))
        assert output.shape == (2, 3, 4 * stride, 5 * stride)
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
        gradients.append(torch.autograd.grad(expected.square().sum(), [*plain.parameters()]))
    torch.stack(outputs).square().sum().backward()
    for k, expected in enumerate(gradients):
        # In the layers' order: weight, then weight and bias of each stage.
        found = [bank.weights[0].grad[k]]  # pyright: ignore[reportOptionalSubscript]
        for weight, bias in zip(list(bank.weights)[1:], bank.biases, strict=True):
            found += [weight.grad[k], bias.grad[k]]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b.reshape(a.shape), rtol=1e-10, atol=1e-10)


def test_the_linear_decoder_equals_its_layers():
    bank = AuxiliaryBank([Dropout()] * 2, 6, 3, stride=4, decoder="linear")
    nn.init.normal_(bank.biases[0])
    z = torch.randn(2, 6, 4, 5)
    cells = torch.einsum("oc,bchw->bohw", bank.weights[0][1], z) + bank.biases[0][1][:, None, None]
    expected = interpolate(cells, scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(bank.logits(1, z), expected)


def test_a_3x3_kernel_sees_around_masked_cells_and_starts_as_a_copy():
    bank = AuxiliaryBank([Dropout()] * 2, 6, 3, stride=2, kernel=3)
    main = AuxiliaryBank([Dropout()], 6, 3, stride=2)
    z = torch.randn(2, 6, 4, 5, requires_grad=True)
    cells = conv2d(z, bank.weights[0][1], padding=1)
    stage = conv2d(cells, bank.weights[1][1][:, :, None, None], bank.biases[0][1])
    torch.testing.assert_close(bank.logits(1, z), pixel_shuffle(stage, 2))
    (gradient,) = torch.autograd.grad(bank.logits(1, z)[:, :, 2, 2].sum(), z)
    assert gradient.abs().sum(1)[0].count_nonzero() == 9
    bank.init_from([w[0][:, :, None, None] for w in main.weights], [b[0] for b in main.biases])
    torch.testing.assert_close(bank.logits(1, z), main.logits(0, z))
    with pytest.raises(ValueError, match="expected 1 or 3"):
        AuxiliaryBank([Dropout()], 6, 3, kernel=5)


def test_a_new_decoder_is_nearest_neighbour_upsampling_and_decoders_differ():
    torch.manual_seed(0)
    bank = AuxiliaryBank([Dropout()] * 3, 6, 4)
    outputs = [bank.logits(k, torch.randn(1, 6, 3, 3, generator=torch.Generator().manual_seed(0))) for k in range(3)]
    for output in outputs:
        assert torch.equal(output, interpolate(output[:, :, ::8, ::8], scale_factor=8, mode="nearest"))
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[1], outputs[2])
    torch.manual_seed(0)
    again = AuxiliaryBank([Dropout()] * 3, 6, 4)
    assert all(torch.equal(a, b) for a, b in zip(bank.parameters(), again.parameters(), strict=True))


def test_last_relu_leaves_no_negative_logits():
    z = torch.randn(2, 6, 3, 3)
    assert AuxiliaryBank([Dropout()], 6, 4, last_relu=True).logits(0, z).min() == 0
    assert AuxiliaryBank([Dropout()], 6, 4, last_relu=False).logits(0, z).min() < 0


def test_decoders_can_start_as_copies_of_the_main_one():
    main = AuxiliaryBank([Dropout()], 6, 4)
    bank = AuxiliaryBank([Dropout()] * 3, 6, 4)
    bank.init_from([w[0][:, :, None, None] for w in main.weights], [b[0] for b in main.biases])
    z = torch.randn(1, 6, 3, 3)
    assert all(torch.equal(bank.logits(k, z), main.logits(0, z)) for k in range(3))
    assert all(p.requires_grad and p.is_leaf for p in bank.parameters())
    with pytest.raises(ValueError, match=r"\(4, 7\)"):
        bank.init_from([torch.zeros(4, 7)], [])


def test_every_decoder_draws_its_own_numbers(generators):
    drawn = []

    def random(name):
        drawn.append(name)
        return generators(0)

    bank = AuxiliaryBank([Dropout(), Vat()], 6, 4, stride=2)
    list(bank(torch.rand(1, 6, 3, 3), Prediction(torch.zeros(1, 4, 6, 6)), random))
    assert drawn == ["0.dropout", "1.vat"]


def test_half_precision_features_are_decoded_in_float32():
    bank = AuxiliaryBank([Dropout()], 6, 4)
    z = torch.randn(1, 6, 3, 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = bank.logits(0, z)
    assert found.dtype == torch.float32 and torch.equal(found, bank.logits(0, z.float()))


def test_half_precision_features_are_perturbed_in_float32(generators):
    bank, prediction = AuxiliaryBank([Dropout(0.3), FeatureNoise(), Vat()], 6, 4), Prediction(torch.zeros(1, 4, 24, 24))
    z = torch.randn(1, 6, 3, 3).bfloat16()
    for half, exact in zip(
        bank(z, prediction, lambda name: generators(0)),
        bank(z.float(), prediction, lambda name: generators(0)),
        strict=True,
    ):
        assert torch.equal(half, exact)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="did you mean 'linear'"):
        AuxiliaryBank([Dropout()], 6, 4, decoder="liner")
    with pytest.raises(ValueError, match="power of two"):
        AuxiliaryBank([Dropout()], 6, 4, stride=6)
    with pytest.raises(ValueError, match="at least one"):
        AuxiliaryBank([], 6, 4)
