//! The policies that are in the binary.

macro_rules! shipped {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../policies/", $name, ".toml")))),*]
    };
}

/// Name and text of each, sorted by name.
pub const SHIPPED: &[(&str, &str)] = shipped! {
    "alibaba"
    "baidu"
    "bytedance"
    "cn-jurisdiction"
    "hk-jurisdiction"
    "huawei-cloud"
    "local-only"
    "ru-jurisdiction"
    "tencent"
    "watch-everything"
};
