# Completions of switchback for Bash: asks the program what may come next.
_switchback() {
    local program="${COMP_WORDS[0]/#\~/$HOME}" current="${COMP_WORDS[COMP_CWORD]}" answer line
    COMPREPLY=()
    answer="$("$program" complete --shell bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" || return 0
    if [[ "$answer" == files ]]; then
        [[ "$current" == = ]] && current=
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$current")
        return 0
    fi
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(tail -n +2 <<<"$answer")
}
complete -F _switchback switchback
