"""FEDD: lesion segmentation and malignancy classification from frozen diffusion features, reported by skin tone."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from .backbone_fedd import FEDDBackbone
from .configuration_fedd import FEDDConfig
from .image_processing_fedd import FEDDImageProcessor
from .labels import SkinTone
from .modeling_fedd import FEDDForImageClassification, FEDDForSegmentation

__version__ = "0.1.0"
__all__ = [
    "FEDDBackbone",
    "FEDDConfig",
    "FEDDForImageClassification",
    "FEDDForSegmentation",
    "FEDDImageProcessor",
    "SkinTone",
]

AutoConfig.register("fedd", FEDDConfig, exist_ok=True)
AutoModel.register(FEDDConfig, FEDDBackbone, exist_ok=True)
AutoBackbone.register(FEDDConfig, FEDDBackbone, exist_ok=True)
AutoModelForSemanticSegmentation.register(FEDDConfig, FEDDForSegmentation, exist_ok=True)
AutoModelForImageClassification.register(FEDDConfig, FEDDForImageClassification, exist_ok=True)
AutoImageProcessor.register(
    FEDDConfig,
    image_processor_classes={"pil": FEDDImageProcessor, "torchvision": FEDDImageProcessor},
    exist_ok=True,
)
# ImageSegmentationPipeline copies the names of this mapping before `register` can add to them, and would log an error.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES["fedd"] = "FEDDForSegmentation"
# Pipelines look for a video processor too, and would ask whether to trust a repository's code for one.
VIDEO_PROCESSOR_MAPPING.register(FEDDConfig, {}, exist_ok=True)

FEDDConfig.register_for_auto_class()
FEDDBackbone.register_for_auto_class("AutoModel")
FEDDForSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
FEDDForImageClassification.register_for_auto_class("AutoModelForImageClassification")
FEDDImageProcessor.register_for_auto_class("AutoImageProcessor")
