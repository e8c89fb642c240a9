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
    "baidu-tongji"
    "bytedance"
    "bytedance-telemetry"
    "cn-jurisdiction"
    "coding-agent"
    "deepseek"
    "deepseek-telemetry"
    "encrypted-dns"
    "firefox-telemetry"
    "hk-jurisdiction"
    "huawei-cloud"
    "local-only"
    "python-packages"
    "ru-jurisdiction"
    "tencent"
    "tiktok-telemetry"
    "volcengine-telemetry"
    "vscode-telemetry"
    "watch-everything"
    "web-analytics"
};

#[cfg(test)]
#[path = "shipped_tests.rs"]
mod tests;
