#compdef switchback
# Completions of switchback for Zsh: asks the program what may come next.
_switchback() {
    local answer line
    local -a given names shown
    given=("${(@Q)words[2,CURRENT-1]}" "$PREFIX")
    answer="$("${(Q)words[1]}" complete --shell zsh -- "${given[@]}" 2>/dev/null)" || return 1
    if [[ "$answer" == files ]]; then
        compset -P '*='
        _files
        return
    fi
    for line in "${(@f)answer}"; do
        names+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  -- }")
    done
    # The first line says what follows.
    shift names
    shift shown
    (( ${#names} )) || return 1
    compadd -l -d shown -a names
}
if [[ "${funcstack[1]}" == _switchback ]]; then
    _switchback "$@"
else
    compdef _switchback switchback
fi
