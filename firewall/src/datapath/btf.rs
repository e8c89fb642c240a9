//! Where members of kernel structures lie, from the running kernel's own type information.
//!
//! The format is that of `Documentation/bpf/btf.rst` in the kernel: a header, a section of types
//! with variable length, a section of strings.

use std::{collections::HashMap, io, path::Path};

use firewall_common::layout::Offsets;

/// Where the kernel shows its type information (since 5.4, with `CONFIG_DEBUG_INFO_BTF`).
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: usize = 0xeb9f;
const KIND_STRUCT: usize = 4;
const KIND_UNION: usize = 5;

/// Why there are no offsets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the kernel's type information {VMLINUX}: {0}")]
    Unreadable(#[source] io::Error),
    /// The file is not what it should be.
    #[error("the kernel's type information {VMLINUX} is damaged")]
    Damaged,
    /// The kernel has no such member.
    #[error("this kernel has no member `{0}`")]
    Missing(String),
}

/// The offsets that the kernel programs need.
pub fn kernel_offsets() -> Result<Offsets, Error> {
    let data = std::fs::read(Path::new(VMLINUX)).map_err(Error::Unreadable)?;
    let btf = Btf::parse(&data)?;
    let at = |of: &str, member: &str| {
        let bits = btf.bit_offset(of, member)?;
        u32::try_from(bits / 8).map_err(|_| Error::Damaged)
    };
    let path = at("file", "f_path")?;
    let name = at("dentry", "d_name")?;
    let (root, pwd) = (at("fs_struct", "root")?, at("fs_struct", "pwd")?);
    let (dentry, mnt) = (at("path", "dentry")?, at("path", "mnt")?);
    let kern = btf.bit_offset("sock", "sk_kern_sock")?;
    let common = at("sock", "__sk_common")?;
    Ok(Offsets {
        task_mm: at("task_struct", "mm")?,
        mm_exe_file: at("mm_struct", "exe_file")?,
        task_leader: at("task_struct", "group_leader")?,
        task_started: at("task_struct", "start_boottime")?,
        task_execs: at("task_struct", "self_exec_id")?,
        task_tgid: at("task_struct", "tgid")?,
        task_comm: at("task_struct", "comm")?,
        task_cred: at("task_struct", "cred")?,
        task_cgroups: at("task_struct", "cgroups")?,
        task_fs: at("task_struct", "fs")?,
        fs_root: root + dentry,
        fs_pwd_dentry: pwd + dentry,
        fs_pwd_mnt: pwd + mnt,
        cred_uid: at("cred", "uid")?,
        cred_gid: at("cred", "gid")?,
        cred_user_ns: at("cred", "user_ns")?,
        user_ns_level: at("user_namespace", "level")?,
        cgroups_default: at("css_set", "dfl_cgrp")?,
        cgroup_node: at("cgroup", "kn")?,
        node_id: at("kernfs_node", "id")?,
        node_name: at("kernfs_node", "name")?,
        node_parent: at("kernfs_node", "parent").or_else(|_| at("kernfs_node", "__parent"))?,
        mm_arg_start: at("mm_struct", "arg_start")?,
        mm_arg_end: at("mm_struct", "arg_end")?,
        mount_ns: at("mount", "mnt_ns")?,
        mount_ns_user_ns: at("mnt_namespace", "user_ns")?,
        file_inode: at("file", "f_inode")?,
        file_flags: at("file", "f_flags")?,
        file_dentry: path + dentry,
        file_mnt: path + mnt,
        inode_ino: at("inode", "i_ino")?,
        inode_sb: at("inode", "i_sb")?,
        sb_dev: at("super_block", "s_dev")?,
        dentry_parent: at("dentry", "d_parent")?,
        dentry_name: name + at("qstr", "name")?,
        dentry_len: name + at("qstr", "len")?,
        mount_mnt: at("mount", "mnt")?,
        mount_parent: at("mount", "mnt_parent")?,
        mount_mountpoint: at("mount", "mnt_mountpoint")?,
        vfsmount_root: at("vfsmount", "mnt_root")?,
        sock_kern_byte: u32::try_from(kern / 8).map_err(|_| Error::Damaged)?,
        sock_kern_mask: 1 << (kern % 8),
        socket_sk: at("socket", "sk")?,
        sock_type: at("sock", "sk_type")?,
        sock_flags: common + at("sock_common", "skc_flags")?,
        sock_protocol: at("sock", "sk_protocol")?,
        sock_family: common + at("sock_common", "skc_family")?,
        sock_state: common + at("sock_common", "skc_state")?,
        sock_port: common + at("sock_common", "skc_num")?,
        sock_peer_port: common + at("sock_common", "skc_dport")?,
        sock_v4: common + at("sock_common", "skc_rcv_saddr")?,
        sock_peer_v4: common + at("sock_common", "skc_daddr")?,
        sock_v6: common + at("sock_common", "skc_v6_rcv_saddr")?,
        sock_peer_v6: common + at("sock_common", "skc_v6_daddr")?,
        sock_net: common + at("sock_common", "skc_net")?,
        net_cookie: at("net", "net_cookie")?,
        tcp_received: at("tcp_sock", "bytes_received")?,
        tcp_acked: at("tcp_sock", "bytes_acked")?,
        tcp_unacked: at("tcp_sock", "snd_una")?,
        tcp_next: at("tcp_sock", "snd_nxt")?,
        tcp_written: at("tcp_sock", "write_seq")?,
    })
}

/// Type information, with the structures found by name.
struct Btf<'a> {
    data: &'a [u8],
    /// Where each type starts; number 0 is void.
    types: Vec<usize>,
    strings: usize,
    structs: HashMap<&'a [u8], usize>,
}

impl<'a> Btf<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, Error> {
        let mut btf = Self { data, types: vec![0], strings: 0, structs: HashMap::new() };
        if btf.word(0)? & 0xffff != MAGIC {
            return Err(Error::Damaged);
        }
        let header = btf.word(4)?;
        let start = header + btf.word(8)?;
        let end = start + btf.word(12)?;
        btf.strings = header + btf.word(16)?;
        let mut at = start;
        while at < end {
            let info = btf.word(at + 4)?;
            let members = info & 0xffff;
            let kind = info >> 24 & 0x1f;
            if kind == KIND_STRUCT {
                let name = btf.name(btf.word(at)?)?;
                btf.structs.entry(name).or_insert(btf.types.len());
            }
            btf.types.push(at);
            at += 12
                + match kind {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 15 | 19 => members * 12,
                    6 | 13 => members * 8,
                    2 | 7..=12 | 16 | 18 => 0,
                    _ => return Err(Error::Damaged),
                };
        }
        Ok(btf)
    }

    fn word(&self, at: usize) -> Result<usize, Error> {
        let bytes =
            self.data.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Error::Damaged)?;
        Ok(u32::from_ne_bytes(*bytes) as usize)
    }

    fn name(&self, offset: usize) -> Result<&'a [u8], Error> {
        let rest = self.data.get(self.strings + offset..).ok_or(Error::Damaged)?;
        let end = rest.iter().position(|byte| *byte == 0).ok_or(Error::Damaged)?;
        Ok(&rest[..end])
    }

    fn bit_offset(&self, of: &str, member: &str) -> Result<usize, Error> {
        let missing = || Error::Missing(format!("{of}.{member}"));
        let id = *self.structs.get(of.as_bytes()).ok_or_else(missing)?;
        self.member(id, member.as_bytes())?.ok_or_else(missing)
    }

    /// Looks through anonymous structures and unions too.
    fn member(&self, id: usize, member: &[u8]) -> Result<Option<usize>, Error> {
        let at = *self.types.get(id).ok_or(Error::Damaged)?;
        let info = self.word(at + 4)?;
        // With the flag set, the upper byte of an offset is the width of a bit field.
        let mask = if info >> 31 == 1 { 0x00ff_ffff } else { usize::MAX };
        for index in 0..info & 0xffff {
            let entry = at + 12 + index * 12;
            let offset = self.word(entry + 8)? & mask;
            let name = self.name(self.word(entry)?)?;
            if name == member {
                return Ok(Some(offset));
            }
            if name.is_empty() {
                let inner = self.word(entry + 4)?;
                let inner_at = *self.types.get(inner).ok_or(Error::Damaged)?;
                let kind = self.word(inner_at + 4)? >> 24 & 0x1f;
                if matches!(kind, KIND_STRUCT | KIND_UNION)
                    && let Some(found) = self.member(inner, member)?
                {
                    return Ok(Some(offset + found));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_an_error() {
        for data in [&b""[..], b"\x9f\xeb", &[0; 64], &[0xff; 64]] {
            assert!(Btf::parse(data).is_err());
        }
    }

    #[test]
    fn the_running_kernel_has_every_member() {
        if Path::new(VMLINUX).exists() {
            let offsets = kernel_offsets().unwrap();
            assert_ne!(offsets.task_mm, 0);
            assert_eq!(offsets.sock_kern_mask.count_ones(), 1);
        }
    }
}
