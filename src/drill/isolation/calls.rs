//! What nobody in a drill may ask of the kernel: a user namespace of its own, in which root could mount and
//! configure again, and keys, which outlive the drill with their user.

use std::collections::BTreeMap;

use libc::{
    CLONE_NEWUSER, SYS_add_key, SYS_bpf, SYS_clone, SYS_clone3, SYS_keyctl, SYS_perf_event_open,
    SYS_request_key, SYS_setns, SYS_unshare,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::sys::{Instruction, filter_calls};

/// Of no process that runs now is anything taken back: call it before the first command. Needs CAP_SYS_ADMIN.
///
/// Errors: this kernel, or this processor, has no filters.
pub(super) fn forbid() -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("system calls cannot be forbidden: {error}");
    for program in programs().map_err(|error| fail(&error))? {
        let of_kernel =
            |one: &seccompiler::sock_filter| Instruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k };
        let filter: Vec<Instruction> = program.iter().map(of_kernel).collect();
        filter_calls(&filter).map_err(|error| fail(&error))?;
    }
    Ok(())
}

fn programs() -> Result<[BpfProgram; 2], seccompiler::Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(seccompiler::Error::Backend)?;
    let of_user = u64::from(CLONE_NEWUSER.cast_unsigned());
    // The flags are the first argument of both on every processor that there are filters for.
    let makes_users =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(of_user), of_user)?;
    let namespaces = vec![SeccompRule::new(vec![makes_users])?];
    let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> =
        [SYS_unshare, SYS_clone].into_iter().map(|call| (call, namespaces.clone())).collect();
    let always = [SYS_setns, SYS_add_key, SYS_keyctl, SYS_request_key, SYS_bpf, SYS_perf_event_open];
    forbidden.extend(always.map(|call| (call, Vec::new())));
    // Its flags lie in memory, where no filter sees them; C libraries take the older one where there is none.
    let missing = BTreeMap::from([(SYS_clone3, Vec::new())]);
    let program = |calls, error: i32| -> Result<BpfProgram, seccompiler::Error> {
        let refused = SeccompAction::Errno(error.cast_unsigned());
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, refused, arch)?;
        Ok(BpfProgram::try_from(filter)?)
    };
    Ok([program(forbidden, libc::EPERM)?, program(missing, libc::ENOSYS)?])
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_filters_for_this_processor() {
        assert!(super::programs().unwrap().iter().all(|program| program.len() > 3));
    }
}
