// Package rtnl asks the kernel of Linux for a few routes out of many, and hears what changes (rtnetlink(7)). A router may hold
// the routes of the whole Internet: so the kernel is asked for what is needed, which it filters itself where it can
// (NETLINK_GET_STRICT_CHK, since Linux 4.20), and all else is passed over where it lies, without being parsed.
//
// It leaves to others what a route or a change means. Links and addresses, of which there are few, are read by the packages that need
// them.
//
// Its functions may be called concurrently. On other systems it tells nothing.
package rtnl
