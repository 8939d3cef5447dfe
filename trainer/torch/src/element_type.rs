//! Torch's names of element types and reductions, and what they are to a collective.

use muster_collectives::{DataType, Reduction};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// One that collectives can reduce.
    Number(DataType),
    /// `bool`: a byte that is 0 or 1.
    Bool,
    /// Any other, of this many bytes: it can be moved, but not reduced.
    Opaque(usize),
}

/// What torch can ask for and collectives cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// A reduction that is unknown.
    #[error("the reduction {0} is not supported: use sum, avg, min, max, product, band, bor or bxor")]
    Reduction(String),
    /// A reduction that does not apply to the elements.
    #[error("{reduction} does not reduce elements of torch.{element}")]
    Elements {
        /// Torch's name of the reduction.
        reduction: String,
        /// Torch's name of the element type.
        element: String,
    },
    /// An element without a size.
    #[error("elements of torch.{0} have no size")]
    NoSize(String),
}

impl ElementType {
    /// The type that torch calls `torch.NAME` and whose elements have `item_size` bytes.
    pub fn parse(name: &str, item_size: usize) -> Result<Self, Unsupported> {
        Ok(match name {
            "float32" => Self::Number(DataType::F32),
            "float64" => Self::Number(DataType::F64),
            "float16" => Self::Number(DataType::F16),
            "bfloat16" => Self::Number(DataType::BF16),
            "int32" => Self::Number(DataType::I32),
            "int64" => Self::Number(DataType::I64),
            "int8" => Self::Number(DataType::I8),
            "uint8" => Self::Number(DataType::U8),
            "bool" => Self::Bool,
            other if item_size == 0 => return Err(Unsupported::NoSize(other.to_owned())),
            _ => Self::Opaque(item_size),
        })
    }

    /// The type in which elements travel, and how many of those one element is.
    pub(crate) fn carried_as(self) -> (DataType, usize) {
        match self {
            Self::Number(data_type) => (data_type, 1),
            Self::Bool => (DataType::U8, 1),
            Self::Opaque(bytes) => (DataType::U8, bytes),
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        let (data_type, count) = self.carried_as();
        count * size_of_element(data_type)
    }
}

/// Bytes of one element, which is also how it must be aligned.
pub(crate) fn size_of_element(data_type: DataType) -> usize {
    match data_type {
        DataType::F64 | DataType::I64 => 8,
        DataType::F32 | DataType::I32 => 4,
        DataType::F16 | DataType::BF16 => 2,
        DataType::I8 | DataType::U8 => 1,
    }
}

/// The reduction that torch calls `ReduceOp.NAME`, of elements of the type that it calls `torch.ELEMENT`.
///
/// Of `bool`, sum and maximum are "any", product and minimum are "all": every result is 0 or 1 again.
pub fn reduction(name: &str, element: &str, element_type: ElementType) -> Result<Reduction, Unsupported> {
    let reduction = match name {
        "SUM" => Reduction::Sum,
        "AVG" => Reduction::Average,
        "MIN" => Reduction::Minimum,
        "MAX" => Reduction::Maximum,
        "PRODUCT" => Reduction::Product,
        "BAND" => Reduction::BitAnd,
        "BOR" => Reduction::BitOr,
        "BXOR" => Reduction::BitXor,
        other => return Err(Unsupported::Reduction(other.to_owned())),
    };
    let applied = match element_type {
        ElementType::Number(data_type) => reduction.applies_to(data_type).then_some(reduction),
        ElementType::Bool => match reduction {
            Reduction::Sum | Reduction::Maximum | Reduction::BitOr => Some(Reduction::BitOr),
            Reduction::Product | Reduction::Minimum | Reduction::BitAnd => Some(Reduction::BitAnd),
            Reduction::BitXor => Some(Reduction::BitXor),
            Reduction::Average => None,
        },
        ElementType::Opaque(_) => None,
    };
    applied.ok_or_else(|| Unsupported::Elements { reduction: name.to_owned(), element: element.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_the_size_that_torch_gives_it() {
        let types = [
            ("float32", 4),
            ("float64", 8),
            ("float16", 2),
            ("bfloat16", 2),
            ("int32", 4),
            ("int64", 8),
            ("int8", 1),
            ("uint8", 1),
            ("bool", 1),
            ("complex64", 8),
            ("float8_e4m3fn", 1),
            ("int16", 2),
        ];
        for (name, bytes) in types {
            assert_eq!(ElementType::parse(name, bytes).unwrap().bytes(), bytes, "{name}");
        }
        assert_eq!(
            ElementType::parse("bits", 0).unwrap_err().to_string(),
            "elements of torch.bits have no size"
        );
    }

    #[test]
    fn truth_values_stay_truth_values() {
        let of_bool = |name| reduction(name, "bool", ElementType::Bool);
        for name in ["SUM", "MAX", "BOR"] {
            assert_eq!(of_bool(name), Ok(Reduction::BitOr));
        }
        for name in ["PRODUCT", "MIN", "BAND"] {
            assert_eq!(of_bool(name), Ok(Reduction::BitAnd));
        }
        assert_eq!(of_bool("AVG").unwrap_err().to_string(), "AVG does not reduce elements of torch.bool");
    }

    #[test]
    fn what_cannot_be_reduced_is_named() {
        let float = ElementType::Number(DataType::F32);
        assert_eq!(reduction("AVG", "float32", float), Ok(Reduction::Average));
        let error =
            |name, element, element_type| reduction(name, element, element_type).unwrap_err().to_string();
        assert_eq!(error("BXOR", "float32", float), "BXOR does not reduce elements of torch.float32");
        assert_eq!(
            error("SUM", "int16", ElementType::Opaque(2)),
            "SUM does not reduce elements of torch.int16"
        );
        assert!(
            error("PREMUL_SUM", "float32", float).starts_with("the reduction PREMUL_SUM is not supported")
        );
    }
}
