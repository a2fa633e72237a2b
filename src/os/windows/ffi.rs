//! The functions of the system that are called here, as their manual pages declare them: Microsoft's reference of the Win32
//! API (learn.microsoft.com/windows/win32/api), and of the driver kit for the two of ntdll. The types are those of
//! `winnt.h`, `minwinbase.h` and `wdm.h`.

#![allow(unsafe_code)]

use std::ffi::c_void;

/// `HANDLE`: a pointer that is none. A number here, so that it can go from thread to thread.
pub(super) type Handle = isize;
pub(super) const INVALID_HANDLE: Handle = -1;

/// `OVERLAPPED` (minwinbase.h): where a transfer goes, and what has become of it.
#[repr(C)]
pub(super) struct Overlapped {
    /// The status, [`STATUS_PENDING`] until it is over.
    pub(super) internal: usize,
    /// The bytes.
    pub(super) internal_high: usize,
    pub(super) offset: u32,
    pub(super) offset_high: u32,
    pub(super) event: Handle,
}

/// ntstatus.h
pub(super) const STATUS_PENDING: usize = 0x103;

/// `BY_HANDLE_FILE_INFORMATION` (fileapi.h). Times are in units of 100 ns since 1601, low half first.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct FileInformation {
    pub(super) attributes: u32,
    pub(super) created: [u32; 2],
    pub(super) accessed: [u32; 2],
    pub(super) written: [u32; 2],
    pub(super) volume: u32,
    pub(super) size_high: u32,
    pub(super) size_low: u32,
    pub(super) links: u32,
    pub(super) index_high: u32,
    pub(super) index_low: u32,
}

/// `FILE_BASIC_INFO` (winbase.h), class 0.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct BasicInfo {
    pub(super) created: i64,
    pub(super) accessed: i64,
    pub(super) written: i64,
    pub(super) changed: i64,
    pub(super) attributes: u32,
}
pub(super) const FILE_BASIC_INFO: i32 = 0;

/// `FILE_STANDARD_INFO` (winbase.h), class 1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct StandardInfo {
    pub(super) allocated: i64,
    pub(super) end: i64,
    pub(super) links: u32,
    pub(super) deleted: u8,
    pub(super) directory: u8,
}
pub(super) const FILE_STANDARD_INFO: i32 = 1;

/// `FILE_END_OF_FILE_INFO` (winbase.h), class 6: an `i64`.
pub(super) const FILE_END_OF_FILE_INFO: i32 = 6;

/// `FILE_FS_SIZE_INFORMATION` (ntddk.h), class 3 of NtQueryVolumeInformationFile.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct VolumeSize {
    _total: i64,
    _available: i64,
    _sectors_per_unit: u32,
    pub(super) bytes_per_sector: u32,
}
pub(super) const FILE_FS_SIZE_INFORMATION: i32 = 3;

/// `SYSTEM_INFO` (sysinfoapi.h).
#[repr(C)]
pub(super) struct SystemInfo {
    _architecture: u32,
    pub(super) page_size: u32,
    _addresses: [*mut c_void; 2],
    _processors: usize,
    _rest: [u32; 4],
}

/// `IO_STATUS_BLOCK` (wdm.h).
#[repr(C)]
#[derive(Default)]
pub(super) struct IoStatus {
    pub(super) status: usize,
    pub(super) information: usize,
}

// fileapi.h, GetFileType
pub(super) const FILE_TYPE_DISK: u32 = 1;
pub(super) const FILE_TYPE_CHAR: u32 = 2;
pub(super) const FILE_TYPE_PIPE: u32 = 3;

// winnt.h: attributes, and rights to a file
pub(super) const FILE_ATTRIBUTE_READONLY: u32 = 0x1;
pub(super) const FILE_ATTRIBUTE_DIRECTORY: u32 = 0x10;
pub(super) const FILE_READ_DATA: u32 = 0x1;
pub(super) const FILE_WRITE_DATA: u32 = 0x2;
pub(super) const FILE_APPEND_DATA: u32 = 0x4;
pub(super) const FILE_SHARE_ALL: u32 = 0x7;

// winbase.h, CreateFile
pub(super) const FILE_FLAG_OVERLAPPED: u32 = 0x4000_0000;
pub(super) const FILE_FLAG_NO_BUFFERING: u32 = 0x2000_0000;
pub(super) const FILE_FLAG_WRITE_THROUGH: u32 = 0x8000_0000;

// wdm.h: classes of NtQueryInformationFile, each of which answers with a `u32`, and bits of the second's answer
pub(super) const FILE_ACCESS_INFORMATION: i32 = 8;
pub(super) const FILE_MODE_INFORMATION: i32 = 16;
pub(super) const FILE_WRITE_THROUGH: u32 = 0x2;
pub(super) const FILE_NO_INTERMEDIATE_BUFFERING: u32 = 0x8;
pub(super) const FILE_SYNCHRONOUS_IO: u32 = 0x30;

// winbase.h, WaitForMultipleObjects
pub(super) const INFINITE: u32 = u32::MAX;
pub(super) const WAIT_FAILED: u32 = u32::MAX;

#[link(name = "kernel32", kind = "raw-dylib")]
unsafe extern "system" {
    // fileapi.h
    pub(super) fn ReadFile(file: Handle, base: *mut c_void, len: u32, read: *mut u32, how: *mut Overlapped) -> i32;
    pub(super) fn WriteFile(
        file: Handle,
        base: *const c_void,
        len: u32,
        written: *mut u32,
        how: *mut Overlapped,
    ) -> i32;
    pub(super) fn FlushFileBuffers(file: Handle) -> i32;
    pub(super) fn GetFileType(file: Handle) -> u32;
    pub(super) fn GetFileSizeEx(file: Handle, size: *mut i64) -> i32;
    pub(super) fn SetFilePointerEx(file: Handle, distance: i64, position: *mut i64, whence: u32) -> i32;
    pub(super) fn GetFileInformationByHandle(file: Handle, information: *mut FileInformation) -> i32;
    pub(super) fn SetFileInformationByHandle(file: Handle, class: i32, information: *const c_void, size: u32) -> i32;
    // winbase.h
    pub(super) fn GetFileInformationByHandleEx(file: Handle, class: i32, information: *mut c_void, size: u32) -> i32;
    pub(super) fn ReOpenFile(file: Handle, access: u32, share: u32, flags: u32) -> Handle;
    // ioapiset.h
    pub(super) fn GetOverlappedResult(file: Handle, how: *mut Overlapped, moved: *mut u32, wait: i32) -> i32;
    // handleapi.h
    pub(super) fn CloseHandle(object: Handle) -> i32;
    // synchapi.h
    pub(super) fn CreateEventW(attributes: *const c_void, manual: i32, set: i32, name: *const u16) -> Handle;
    pub(super) fn SetEvent(event: Handle) -> i32;
    pub(super) fn ResetEvent(event: Handle) -> i32;
    pub(super) fn WaitForMultipleObjects(count: u32, objects: *const Handle, all: i32, milliseconds: u32) -> u32;
    // consoleapi.h
    pub(super) fn GetConsoleMode(console: Handle, mode: *mut u32) -> i32;
    // processthreadsapi.h
    pub(super) fn GetCurrentThread() -> Handle;
    pub(super) fn GetThreadTimes(
        thread: Handle,
        created: *mut u64,
        ended: *mut u64,
        kernel: *mut u64,
        user: *mut u64,
    ) -> i32;
    // sysinfoapi.h
    pub(super) fn GetSystemInfo(information: *mut SystemInfo);
    // errhandlingapi.h
    pub(super) fn GetLastError() -> u32;
    pub(super) fn SetLastError(code: u32);
}

#[link(name = "ntdll", kind = "raw-dylib")]
unsafe extern "system" {
    // ntifs.h of the driver kit
    pub(super) fn NtQueryInformationFile(
        file: Handle,
        status: *mut IoStatus,
        information: *mut c_void,
        size: u32,
        class: i32,
    ) -> i32;
    pub(super) fn NtQueryVolumeInformationFile(
        file: Handle,
        status: *mut IoStatus,
        information: *mut c_void,
        size: u32,
        class: i32,
    ) -> i32;
}
