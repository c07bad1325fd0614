# STAS, the STorage Appliance Services. "make help" lists what can be made.

PREFIX     ?= /usr
SYSCONFDIR ?= /etc
DESTDIR    ?=
SBINDIR    ?= $(PREFIX)/sbin
BINDIR     ?= $(PREFIX)/bin
MANDIR     ?= $(PREFIX)/share/man
UNITDIR    ?= $(PREFIX)/lib/systemd/system
DBUSDIR    ?= $(PREFIX)/share/dbus-1/system.d
DOCDIR     ?= $(PREFIX)/share/doc/stas
BASHDIR    ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR     ?= $(PREFIX)/share/zsh/vendor-completions
FISHDIR    ?= $(PREFIX)/share/fish/vendor_completions.d

GO      ?= go
SUITE   ?= trixie
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null | grep -E '^v?[0-9]+\.' || echo 0.1.0-dev)
LDFLAGS := -s -w -X github.com/nvme-stas/stas/internal/version.Version=$(VERSION)

DAEMONS := stafd stacd
TOOLS   := stafctl stacctl stasadm stas-lab
UNITS   := stafd.service stacd.service stas-config@.service
CONFS   := stafd.conf stacd.conf
POLICY  := org.nvmexpress.staf.conf org.nvmexpress.stac.conf
MANPAGES := $(wildcard docs/man/*.[1-8])
# The tools print their own completion. Who builds for another machine says
# where there are some that run here.
TOOLDIR ?= bin
COMPLETIONS := $(foreach t,$(TOOLS),'$(DESTDIR)$(BASHDIR)/$(t)' '$(DESTDIR)$(ZSHDIR)/_$(t)' '$(DESTDIR)$(FISHDIR)/$(t).fish')

# Machines that all is built for, and those of them that the codecs are tested
# on, under qemu-user: one counts bytes from the other end, one has 32 bits.
ARCHES   := arm64 ppc64le riscv64 s390x arm 386
EMULATED := s390x arm
CODECS   := ./pkg/nvme ./pkg/nvmetcp ./pkg/dhchap ./pkg/nbft ./pkg/uevent ./pkg/fabrics ./pkg/nvmesysfs ./internal/tid

LINT_VERSION := v2.15.0
LINT         := build/tools/golangci-lint-$(LINT_VERSION)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## */\t/' | expand -t 14

.PHONY: build
build: ## build the programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: install
install: build ## install below $(DESTDIR); see PREFIX, SYSCONFDIR at the top
	install -d '$(DESTDIR)$(SBINDIR)' '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(DBUSDIR)' \
		'$(DESTDIR)$(DOCDIR)' '$(DESTDIR)$(SYSCONFDIR)/stas' '$(DESTDIR)$(SYSCONFDIR)/nvme'
	install -m 755 $(addprefix bin/,$(DAEMONS)) '$(DESTDIR)$(SBINDIR)'
	install -m 755 $(addprefix bin/,$(TOOLS)) '$(DESTDIR)$(BINDIR)'
	for u in $(UNITS); do \
		sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@BINDIR@|$(BINDIR)|g' "systemd/$$u.in" >"$(DESTDIR)$(UNITDIR)/$$u" && \
		chmod 644 "$(DESTDIR)$(UNITDIR)/$$u" || exit 1; \
	done
	install -m 644 systemd/stas-config.target '$(DESTDIR)$(UNITDIR)'
	install -m 644 $(addprefix configs/,$(POLICY)) '$(DESTDIR)$(DBUSDIR)'
	# A configuration that somebody has written stays.
	for c in $(CONFS); do \
		test -e "$(DESTDIR)$(SYSCONFDIR)/stas/$$c" || install -m 644 "configs/$$c" '$(DESTDIR)$(SYSCONFDIR)/stas' || exit 1; \
	done
	install -m 644 configs/sys.conf.doc '$(DESTDIR)$(SYSCONFDIR)/stas'
	for m in $(MANPAGES); do \
		install -D -m 644 -t "$(DESTDIR)$(MANDIR)/man$${m##*.}" "$$m" || exit 1; \
	done
	install -d '$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)'
	for t in $(TOOLS); do \
		"$(TOOLDIR)/$$t" completion bash >"$(DESTDIR)$(BASHDIR)/$$t" && \
		"$(TOOLDIR)/$$t" completion zsh >"$(DESTDIR)$(ZSHDIR)/_$$t" && \
		"$(TOOLDIR)/$$t" completion fish >"$(DESTDIR)$(FISHDIR)/$$t.fish" || exit 1; \
	done
	chmod 644 $(COMPLETIONS)
	install -m 644 README.md NEWS.md LICENSE docs/compatibility.md '$(DESTDIR)$(DOCDIR)'
	@test -n '$(DESTDIR)' || echo 'Now: systemctl daemon-reload; systemctl reload dbus; systemctl enable --now stafd stacd'

.PHONY: uninstall
uninstall: ## remove what install has installed; changed configuration stays
	rm -f $(addprefix '$(DESTDIR)$(SBINDIR)'/,$(DAEMONS)) $(addprefix '$(DESTDIR)$(BINDIR)'/,$(TOOLS))
	rm -f $(addprefix '$(DESTDIR)$(UNITDIR)'/,$(UNITS) stas-config.target) $(addprefix '$(DESTDIR)$(DBUSDIR)'/,$(POLICY))
	for m in $(MANPAGES); do rm -f "$(DESTDIR)$(MANDIR)/man$${m##*.}/$${m##*/}"; done
	for c in $(CONFS) sys.conf.doc; do \
		if cmp -s "configs/$$c" "$(DESTDIR)$(SYSCONFDIR)/stas/$$c"; then rm "$(DESTDIR)$(SYSCONFDIR)/stas/$$c"; fi; \
	done
	-rmdir '$(DESTDIR)$(SYSCONFDIR)/stas' 2>/dev/null
	rm -f $(COMPLETIONS)
	rm -rf '$(DESTDIR)$(DOCDIR)'

.PHONY: demo
demo: ## show the product at work on a real kernel, in a throwaway guest
	@$(GO) run ./test/vm demo -suite $(SUITE)

.PHONY: vm-shell
vm-shell: ## a shell in the guest of the demo
	@$(GO) run ./test/vm shell -suite $(SUITE)

.PHONY: test
test: check cross vm-test ## everything: check, cross, then the scenarios in the guest

.PHONY: check
check: lint ## the fast half of the tests: linters, unit and component tests
	$(GO) test -race ./...

.PHONY: cross
cross: export CGO_ENABLED := 0
cross: export GOARM := 7
cross: ## build for other machines; test the codecs on a big-endian one and a small one
	@for a in $(EMULATED); do \
		command -v "qemu-$$a" >/dev/null || { echo "qemu-$$a is missing: .ci/prepare installs it"; exit 1; }; \
	done
	@for a in $(ARCHES); do \
		echo "== $$a"; GOARCH=$$a $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o "build/cross/$$a/" ./cmd/... || exit 1; \
	done
	@for a in $(EMULATED); do \
		echo "== codecs on $$a"; GOARCH=$$a $(GO) test -short -exec "qemu-$$a" $(CODECS) || exit 1; \
	done

# Those of the second guest.
LABTESTS := ^TestGuest(Lab|Links|MDNS)$$

.PHONY: vm-test
vm-test: ## the scenarios on a real kernel; SUITE=bookworm, trixie or sid
	$(GO) run ./test/vm image -suite $(SUITE)
	# Two guests at a time: they wait more than they compute.
	$(MAKE) --no-print-directory -j2 vm-test-daemons vm-test-lab

.PHONY: vm-test-daemons
vm-test-daemons:
	$(GO) run ./test/vm test -suite $(SUITE) -label daemons -skip '$(LABTESTS)'

.PHONY: vm-test-lab
vm-test-lab:
	$(GO) run ./test/vm test -suite $(SUITE) -label lab -run '$(LABTESTS)'
	$(GO) run ./test/vm test -suite $(SUITE) -label lab -nbft test/scenario/testdata/NBFT -run '^TestGuest$$/^BootTable$$'

.PHONY: peer-test
peer-test: ## STAS and nvme-stas (Python) beside each other: the same answers, either in place of the other
	$(GO) run ./test/vm test -suite trixie-peer -run '^TestPeer'

.PHONY: bench
bench: ## measure: Go benchmarks, then the product against bare connects in the guest
	$(GO) test -run '^$$' -bench . -benchmem ./internal/... ./pkg/...
	$(GO) run ./test/vm test -suite $(SUITE) -run '^TestMeasure'

.PHONY: fuzz
fuzz: FUZZTIME ?= 1m
fuzz: ## each fuzz test for FUZZTIME
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r f; do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$f"); do \
			echo "== $$t in $${f%/*}"; $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$${f%/*}" </dev/null || exit 1; \
		done; \
	done

.PHONY: lint
lint: $(LINT) ## linters and formatting
	@test -z "$$(gofmt -l .)" || { gofmt -d . ; echo 'not gofmt-ed'; exit 1; }
	$(GO) vet ./...
	$(LINT) run
	shellcheck .ci/run .ci/prepare $(wildcard test/vm/guest/*/*.sh)
	mandoc -T lint -W warning $(MANPAGES)

$(LINT):
	GOBIN='$(CURDIR)/build/tools/new' $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv build/tools/new/golangci-lint $@

.PHONY: clean
clean: ## remove what was built here; the guest's images are elsewhere
	rm -rf bin build
