# Completions of switchback for fish: asks the program what may come next.
function __switchback_complete
    set -l given (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($given[1] complete --shell fish -- $given[2..-1] "$current" 2>/dev/null)
    or return
    if test "$answer[1]" = files
        __fish_complete_path "$current"
        return
    end
    for line in $answer[2..-1]
        printf '%s\n' $line
    end
end
complete -c switchback -f -a '(__switchback_complete)'
