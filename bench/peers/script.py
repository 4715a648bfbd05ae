"""A transfer-learning script as people write it: nothing of tlbench is in it. See README.md beside this file.

    python bench/peers/script.py --data PATH --freeze last_1 --epochs 10

PATH has train/, val/ and test/. ResNet-18; the frozen part stays in eval mode. Prints a line an epoch.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--weights", type=Path, help="a state dict of the whole model")
parser.add_argument("--freeze", choices=("linear_probe", "last_1", "full"), default="linear_probe")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--lr", type=float, default=3e-4)
given = parser.parse_args()

torch.manual_seed(0)
prepare = transforms.Compose(
    [
        transforms.Resize(round(256 * given.image_size / 224)),
        transforms.CenterCrop(given.image_size),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)
sets = {part: datasets.ImageFolder(str(given.data / part), prepare) for part in ("train", "val", "test")}
loaders = {
    part: DataLoader(images, batch_size=given.batch_size, shuffle=part == "train", num_workers=2)
    for part, images in sets.items()
}
model = models.resnet18(weights=None)
if given.weights:
    model.load_state_dict(torch.load(given.weights, weights_only=True))
for parameter in model.parameters():
    parameter.requires_grad = given.freeze == "full"
if given.freeze == "last_1":
    for parameter in model.layer4.parameters():
        parameter.requires_grad = True
model.fc = nn.Linear(model.fc.in_features, len(sets["train"].classes))
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.SGD(trained, lr=given.lr, momentum=0.9)
criterion = nn.CrossEntropyLoss()


def accuracy(part: str) -> float:
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loaders[part]:
            correct += int((model(images).argmax(1) == labels).sum())
    return correct / len(sets[part])


for epoch in range(given.epochs):
    model.train(given.freeze == "full")
    if given.freeze == "last_1":
        model.layer4.train()
    for images, labels in loaders["train"]:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: validation accuracy {accuracy('val'):.3f}", flush=True)
print(f"test accuracy {accuracy('test'):.3f}")
