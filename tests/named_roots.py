"""Small roots of torchvision's classification sets, each in its own on-disk format: a few images of noise a class."""

import bz2
import csv
import json
import pickle
import struct
import sys
import types

import numpy as np
import torch
from PIL import Image

COUNTS = {"train": 5, "val": 3, "test": 3, "": 9}
"""Images of a class in each part that authors give; "" where they give none."""
_random = np.random.default_rng(0)


def noise(size=12, channels=3):
    """(size, size, channels) or (size, size) uint8, other values at each call."""
    return _random.integers(0, 256, (size, size, channels) if channels > 1 else (size, size), np.uint8)


def save(path, size=12, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(size, channels)).save(path)
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text, encoding="utf-8")


def lines(path, rows):
    write(path, "".join(f"{row}\n" for row in rows))


def several(part, classes, form):
    """Names for the images of a part: ``form`` gets the class, the part and a number."""
    return [(label, form.format(c=c, part=part, n=n)) for label, c in enumerate(classes) for n in range(COUNTS[part])]


def class_folders(root, parts, classes, ending=".png"):
    for folder, part in parts.items():
        for _, name in several(part, classes, "{c}/{part}_{n}" + ending):
            save(root / folder / name)


# --- train, val, test -----------------------------------------------------------------------------------------


def dtd(root):
    base, names = root / "dtd" / "dtd", ("banded", "dotted")
    form = "{c}/{c}_{part}{n}.jpg"
    parts = {part: [name for _, name in several(part, names, form)] for part in ("train", "val", "test")}
    for name in (name for several_names in parts.values() for name in several_names):
        save(base / "images" / name)
    for number, (train, val) in enumerate((("train", "val"), ("val", "train")), start=1):
        for part, of in (("train", train), ("val", val), ("test", "test")):
            lines(base / "labels" / f"{part}{number}.txt", parts[of])


def flowers102(root):
    from scipy.io import savemat

    base, numbers, ids = root / "flowers-102", [], {"trnid": [], "valid": [], "tstid": []}
    for key, part in zip(ids, ("train", "val", "test"), strict=True):
        for label, _ in several(part, "ab", "{n}"):
            numbers.append(label + 1)
            ids[key].append(len(numbers))
            save(base / "jpg" / f"image_{len(numbers):05d}.jpg")
    savemat(base / "imagelabels.mat", {"labels": np.array([numbers])})
    savemat(base / "setid.mat", {key: np.array([of]) for key, of in ids.items()})


def fgvc_aircraft(root):
    base = root / "fgvc-aircraft-2013b" / "data"
    levels = {"variant": ("707-320", "Cessna 172", "727-200"), "family": ("707", "Cessna 172", "727")}
    levels["manufacturer"] = ("Boeing", "Cessna", "Boeing")
    files = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
    images = {}
    for part in ("train", "val", "test"):
        images[part] = [(label, f"{part}{label}{n}") for label, n in several(part, "abc", "{n}")]
        for _, name in images[part]:
            save(base / "images" / f"{name}.jpg")
    images["trainval"] = images["train"] + images["val"]
    for level, names in levels.items():
        lines(base / f"{files[level]}.txt", dict.fromkeys(names))
        for part, members in images.items():
            lines(base / f"images_{level}_{part}.txt", [f"{name} {names[label]}" for label, name in members])


def rendered_sst2(root):
    parts = {"train": "train", "valid": "val", "test": "test"}
    class_folders(root / "rendered-sst2", parts, ("negative", "positive"))


def pcam(root):
    for part, called in (("train", "train"), ("val", "valid"), ("test", "test")):
        labels = [label for label, _ in several(part, "ab", "{n}")]
        base = root / "pcam" / f"camelyonpatch_level_2_split_{called}"
        base.parent.mkdir(exist_ok=True)
        for what, values in (("x", np.stack([noise() for _ in labels])), ("y", np.array(labels).reshape(-1, 1, 1, 1))):
            write_h5(f"{base}_{what}.h5", what, values.astype(np.uint8))


def write_h5(path, name, values):
    import h5py

    if hasattr(h5py, "write"):
        h5py.write(path, name, values)
    else:
        with h5py.File(path, "w") as file:
            file[name] = values


def h5py_stand_in():
    """A module that reads arrays as h5py does, from files of its own: where h5py is not installed."""
    module = types.ModuleType("h5py")

    class File(dict):
        def __init__(self, path, mode="r"):
            with np.load(path) as file:
                super().__init__({name: file[name] for name in file.files})

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def put(path, name, values):
        with open(path, "wb") as file:
            np.savez(file, **{name: values})

    module.File, module.write = File, put
    return module


def clevr(root):
    base = root / "clevr" / "CLEVR_v1.0"
    for part in ("train", "val", "test"):
        names = [(label, name) for label, name in several(part, ("3", "10"), "CLEVR_{part}_{c}_{n}.png")]
        for _, name in names:
            save(base / "images" / part / name)
        scenes = [{"image_filename": name, "objects": [{}] * (3, 10)[label]} for label, name in names]
        if part != "test":
            write(base / "scenes" / f"CLEVR_{part}_scenes.json", json.dumps({"scenes": scenes}))


def country211(root):
    parts = {"train": "train", "valid": "val", "test": "test"}
    class_folders(root / "country211", parts, ("AD", "ZW"), ".jpg")


# --- train, test ----------------------------------------------------------------------------------------------


def food101(root):
    for part in ("train", "test"):
        meta = {c: [f"{c}/{part}{n}" for n in range(COUNTS[part])] for c in ("waffles", "apple_pie")}
        write(root / "food-101" / "meta" / f"{part}.json", json.dumps(meta))
        for names in meta.values():
            for name in names:
                save(root / "food-101" / "images" / f"{name}.jpg")


def gtsrb(root):
    base = root / "gtsrb"
    class_folders(base / "GTSRB", {"Training": "train"}, ("00000", "00001"), ".ppm")
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number, (label, _) in enumerate(several("test", (0, 1), "{n}")):
        save(base / "GTSRB" / "Final_Test" / "Images" / f"{number:05d}.ppm")
        rows.append(f"{number:05d}.ppm;12;12;1;1;11;11;{label}")
    lines(base / "GT-final_test.csv", rows)


def svhn(root):
    from scipy.io import savemat

    for part, called in (("train", "train"), ("test", "test"), ("train", "extra")):
        labels = [(10, 4)[label] for label, _ in several(part, "ab", "{n}")]  # 10 is the digit 0
        pixels = np.stack([noise(32) for _ in labels], -1)
        savemat(root / f"{called}_32x32.mat", {"X": pixels, "y": np.array(labels, np.uint8)[:, None]})


def stl10(root):
    base = root / "stl10_binary"
    for part in ("train", "test"):
        labels = [label + 1 for label, _ in several(part, "ab", "{n}")]
        write(base / f"{part}_X.bin", b"".join(noise(96).tobytes() for _ in labels))
        write(base / f"{part}_y.bin", bytes(labels))
    write(base / "unlabeled_X.bin", noise(96).tobytes())
    lines(base / "class_names.txt", ("airplane", "bird"))
    lines(base / "fold_indices.txt", ["0 1 2 5 6 7 "] * 10)


def fer2013(root):
    path = root / "fer2013" / "fer2013.csv"
    path.parent.mkdir(parents=True)
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["emotion", "pixels", "Usage"])
        for usage, part in (("Training", "train"), ("PublicTest", "test"), ("PrivateTest", "test")):
            for label, _ in several(part, "ab", "{n}"):
                rows.writerow([(0, 6)[label], " ".join(map(str, noise(48, 1).ravel())), usage])


def stanford_cars(root):
    from scipy.io import savemat

    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    for part, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        members = several(part, "ab", "{c}{n}.jpg")
        annotations = np.zeros((1, len(members)), [("class", object), ("fname", object)])
        for place, (label, name) in enumerate(members):
            save(base / f"cars_{part}" / name)
            annotations[0, place] = (label + 1, name)
        savemat(base / path, {"annotations": annotations})


# --- trainval, test; train, val -------------------------------------------------------------------------------


def oxford_pet(root):
    base = root / "oxford-iiit-pet"
    for called, part in (("trainval", "train"), ("test", "test")):
        members = several(part, ("Abyssinian", "american_bulldog"), "{c}_{part}{n}")
        members = [(label, name.replace(f"_{part}", f"_{100 * (part == 'test')}")) for label, name in members]
        for _, name in members:
            save(base / "images" / f"{name}.jpg")
        lines(base / "annotations" / f"{called}.txt", [f"{name} {label + 1} {label + 1} 1" for label, name in members])


WNIDS = ("n01440764", "n02979186")


def imagenette(root):
    for folder in ("imagenette2", "imagenette2-160"):
        class_folders(root / folder, {"train": "train", "val": "val"}, WNIDS, ".JPEG")


def imagenet(root):
    names = {WNIDS[0]: ("tench", "Tinca tinca"), WNIDS[1]: ("cassette player",)}
    torch.save((names, [WNIDS[0]]), root / "meta.bin")
    class_folders(root, {"train": "train", "val": "val"}, WNIDS, ".JPEG")


def places365(root):
    names = ("/a/airfield", "/b/beach")
    lines(root / "categories_places365.txt", [f"{name} {label}" for label, name in enumerate(names)])
    members = several("train", names, "{c}/{n}.jpg")
    for _, name in members:
        save(root / "data_256_standard" / name.lstrip("/"))
    lines(root / "places365_train_standard.txt", [f"{name} {label}" for label, name in members])
    members = [(label, f"Places365_val_{n}.jpg") for n, (label, _) in enumerate(several("val", names, "{n}"))]
    for _, name in members:
        save(root / "val_256" / name)
    lines(root / "places365_val.txt", [f"{name} {label}" for label, name in members])


# --- train=True, train=False ----------------------------------------------------------------------------------


def cifar(root, folder, train, meta, key, names):
    base = root / folder
    base.mkdir(parents=True)
    for file in (*train, "test" if folder.endswith("100-python") else "test_batch"):
        part = "test" if file.startswith("test") else "train"
        labels = [label for label, _ in several(part, names, "{n}")]
        data = np.stack([noise(32).transpose(2, 0, 1).ravel() for _ in labels])
        write(base / file, pickle.dumps({"data": data, key: labels}))
    write(base / meta, pickle.dumps({("label_names" if key == "labels" else "fine_label_names"): list(names)}))


def cifar10(root):
    batches = [f"data_batch_{n}" for n in range(1, 6)]
    cifar(root, "cifar-10-batches-py", batches, "batches.meta", "labels", ("airplane", "automobile"))


def cifar100(root):
    cifar(root, "cifar-100-python", ["train"], "meta", "fine_labels", ("apple", "aquarium_fish"))


def idx(path, values, kind=8):
    """MNIST's format: type and dimensions, then big-endian values."""
    header = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    write(path, header + values.tobytes())


def of_idx(root, form, labels=(0, 3), sizes=28):
    for part, called in (("train", form[0]), ("test", form[1])):
        numbers = [labels[label] for label, _ in several(part, labels, "{n}")]
        idx(root / f"{called}-images-idx3-ubyte", np.stack([noise(sizes, 1) for _ in numbers]))
        idx(root / f"{called}-labels-idx1-ubyte", np.array(numbers, np.uint8))


def mnist(name):
    return lambda root: of_idx(root / name / "raw", ("train", "t10k"))


def qmnist(root):
    for part in ("train", "test"):
        numbers = [(0, 3)[label] for label, _ in several(part, "ab", "{n}")]
        base = root / "QMNIST" / "raw" / f"qmnist-{part}"
        idx(base.with_name(f"{base.name}-images-idx3-ubyte"), np.stack([noise(28, 1) for _ in numbers]))
        rows = np.array([[number, *range(7)] for number in numbers], ">i4")
        idx(base.with_name(f"{base.name}-labels-idx2-int"), rows, kind=12)


def usps(root):
    for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        rows = []
        for label, _ in several(part, "ab", "{n}"):
            values = noise(16, 1).ravel() / 127.5 - 1
            rows.append(" ".join([str(label + 1), *(f"{n + 1}:{value:.6f}" for n, value in enumerate(values))]))
        write(root / name, bz2.compress("\n".join(rows).encode()))


def emnist(root):
    for split in ("letters", "balanced"):
        of_idx(root / "EMNIST" / "raw", (f"emnist-{split}-train", f"emnist-{split}-test"), labels=(1, 2))


# --- none, and odd --------------------------------------------------------------------------------------------


def caltech101(root):
    base = root / "caltech101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "accordion", "airplanes"):
        for n in range(1, COUNTS[""] + 1):
            save(base / name / f"image_{n:04d}.jpg")


def caltech256(root):
    for label, name in enumerate(("ak47", "clutter"), start=1):
        for n in range(1, COUNTS[""] + 1):
            save(root / "caltech256" / "256_ObjectCategories" / f"{label:03d}.{name}" / f"{label:03d}_{n:04d}.jpg")


def eurosat(root):
    class_folders(root / "eurosat", {"2750": ""}, ("AnnualCrop", "Forest"), ".jpg")


def sun397(root):
    lines(root / "SUN397" / "ClassName.txt", ("/a/abbey", "/b/bar/indoor"))
    for _, name in several("", ("a/abbey", "b/bar/indoor"), "{c}/sun_{n}.jpg"):
        save(root / "SUN397" / name)


def semeion(root):
    rows = []
    for label, _ in several("", "ab", "{n}"):
        bits = [f"{bit:.4f}" for bit in _random.integers(0, 2, 256)]
        rows.append(" ".join([*bits, *(str(int(place == label)) for place in range(10))]))
    lines(root / "semeion.data", rows)


SPECIES = (
    "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
    "00001_Plantae_Tracheophyta_Magnoliopsida_Rosales_Rosaceae_Rosa_canina",
)


def inaturalist(root):
    class_folders(root, {"2021_train": "train", "2021_valid": "val"}, SPECIES, ".jpg")
    class_folders(root, {"2019": ""}, ("Amphibians/0", "Birds/1"), ".jpg")


def omniglot(root):
    names = ("Greek/character01", "Greek/character02", "Latin/character01")
    for kind in ("images_background", "images_evaluation"):
        write(root / "omniglot-py" / f"{kind}.zip", "")
        for _, name in several("", names, "{c}/{n:04d}_01.png"):
            save(root / "omniglot-py" / kind / name, channels=1)


PEOPLE = {"Ann_Bee": 23, "Cy_Dee": 21, "Eve_Fox": 1}


def lfw_people(root):
    base = root / "lfw-py"
    for name, count in PEOPLE.items():
        for n in range(1, count + 1):
            save(base / "lfw_funneled" / name / f"{name}_{n:04d}.jpg")
    write(base / "lfw-funneled.tgz", "")
    lines(base / "lfw-names.txt", [f"{name} {count}" for name, count in PEOPLE.items()])
    lines(base / "people.txt", ["1", len(PEOPLE), *(f"{name}\t{count}" for name, count in PEOPLE.items())])


BUILD = {
    "DTD": dtd, "Flowers102": flowers102, "FGVCAircraft": fgvc_aircraft, "RenderedSST2": rendered_sst2, "PCAM": pcam,
    "CLEVRClassification": clevr, "Country211": country211, "Food101": food101, "GTSRB": gtsrb, "SVHN": svhn,
    "STL10": stl10, "FER2013": fer2013, "StanfordCars": stanford_cars, "OxfordIIITPet": oxford_pet,
    "Imagenette": imagenette, "ImageNet": imagenet, "Places365": places365, "CIFAR10": cifar10, "CIFAR100": cifar100,
    "MNIST": mnist("MNIST"), "FashionMNIST": mnist("FashionMNIST"), "KMNIST": mnist("KMNIST"), "QMNIST": qmnist,
    "USPS": usps, "EMNIST": emnist, "Caltech101": caltech101, "Caltech256": caltech256, "EuroSAT": eurosat,
    "SUN397": sun397, "SEMEION": semeion, "INaturalist": inaturalist, "Omniglot": omniglot, "LFWPeople": lfw_people,
}  # fmt: skip
SIZE = {"SVHN": 32, "STL10": 96, "FER2013": 48, "CIFAR10": 32, "CIFAR100": 32, "USPS": 16, "SEMEION": 16}
SIZE |= dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"), 28)
"""Pixels a side of the images; 12 elsewhere."""


def checksums_agree(monkeypatch):
    """Has torchvision find the hashes of made files right: those of the authors' files they cannot have."""
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *args, **options: True)
    try:
        import h5py  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "h5py", h5py_stand_in())
