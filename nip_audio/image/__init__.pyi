from .adapter import Image as Image
from .adapter import ImageAdapter as ImageAdapter
from .datasets import ImageSet as ImageSet
from .datasets import load_images as load_images
from .modality import MODALITY as MODALITY
from .remote import RemoteClassifier as RemoteClassifier
from .remote import RemoteSettings as RemoteSettings
